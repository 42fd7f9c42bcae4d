"""NSGA-II: a population spread over the Pareto front.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II",
IEEE Transactions on Evolutionary Computation 6(2), 2002. Sorting and crowding are pymoo's: J. Blank, K. Deb,
"pymoo: Multi-Objective Optimization in Python", IEEE Access 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, to_json
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class NSGA2(SearchStrategy):
    """Generations of ``population_size``; the best of parents and children together are the next parents.

    An architecture is better if it is in a lower non-dominated front or, within a front, has a larger
    crowding distance. Binary tournaments in this order choose the parents; a child is their uniform crossover
    (or a copy of one), mutated once. A child that is infeasible or whose canonical form was proposed before
    is bred again, with one more mutation after every ``ATTEMPTS_PER_MUTATION`` attempts; after ``ATTEMPTS`` a
    random architecture takes its place. Trials that failed or have a non-finite score count for their
    generation but never enter the population. With a single objective this is an elitist genetic algorithm.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        population_size: Architectures in a generation (N in the paper, there 100).
        crossover: Probability that a child has two parents, in [0, 1]; .9 in the paper.

    Raises:
        UserError: pymoo is not installed (the message has the command to install it), or a bad option.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        population_size: int = 20,
        crossover: float = 0.9,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        if population_size < 2:
            raise UserError(f"population_size: expected at least 2, got {population_size}")
        if not 0 <= crossover <= 1:
            raise UserError(f"crossover: expected a probability in [0, 1], got {crossover}")
        self.population_size = population_size
        self.crossover = crossover
        self._sort, self._crowd = _pymoo()
        self._parents: list[Member] = []  # best first
        self._children: list[Member] = []
        self._told = 0  # trials of this generation, including failed ones

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        member = member_of(trial, self.objectives)
        if member is not None:
            self._children.append(member)
        self._told += 1
        if self._told >= self.population_size:
            self._parents = self._survivors([*self._parents, *self._children])
            self._children, self._told = [], 0

    def state(self) -> dict[str, Any]:  # noqa: D102
        generation = {"parents": to_json(self._parents), "children": to_json(self._children)}
        return super().state() | generation | {"told": self._told}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._parents = from_json(self.space.name, state["parents"])
        self._children = from_json(self.space.name, state["children"])
        self._told = int(state["told"])

    def _survivors(self, members: list[Member]) -> list[Member]:
        """The best ``population_size``, best first: by front, then by crowding distance, then by age."""
        if not members:
            return []
        losses = -np.array([fitness for _, fitness in members], dtype=np.float64)
        chosen: list[Member] = []
        for front in self._sort(losses):
            indices = np.sort(np.asarray(front))  # pymoo does not guarantee an order
            distance = self._crowd(losses[indices])
            for i in indices[np.argsort(-distance, kind="stable")].tolist():
                chosen.append(members[i])
                if len(chosen) == self.population_size:
                    return chosen
        return chosen

    def _propose(self) -> Architecture:
        if len(self._parents) >= 2 and self.space.size != 1:
            return self._claim_child(self._breed)
        return self._sample()

    def _breed(self, mutations: int) -> Architecture:
        child = self._tournament()
        if self._rng.random() < self.crossover:
            child = self.space.crossover(child, self._tournament(), self._rng)
        for _ in range(mutations):
            child = self.space.mutate(child, self._rng)
        return child

    def _tournament(self) -> Architecture:
        count = len(self._parents)
        return self._parents[min(self._rng.randrange(count), self._rng.randrange(count))][0]


def _pymoo() -> tuple[Callable[[Any], list[Any]], Callable[[Any], Any]]:
    """Non-dominated sorting and crowding distance, both of values to minimise."""
    try:
        from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
        from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
    except ImportError:
        raise UserError(
            "strategy nsga2: needs the package pymoo; install it with: pip install 'pynas-torch[pymoo]'"
        ) from None
    return NonDominatedSorting().do, calc_crowding_distance
