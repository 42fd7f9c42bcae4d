"""Local search: walk to better neighbours until there are none, then start elsewhere.

C. White, S. Nolen, Y. Savani: Exploring the Loss Landscape in Neural Architecture Search. UAI 2021, arXiv
2005.02960.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas._multiobjective import mean_ranks
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.trial import Status, Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

Fitness = tuple[float, ...]


class LocalSearch(SearchStrategy):
    """Proposes the neighbours of the best architecture of the present walk, in random order.

    A neighbour that is better becomes the place to stand. The walk ends where no untried neighbour is left;
    the next begins at a random architecture. With ``whole_neighbourhood`` every neighbour is tried before the
    walk moves, to the best of them (the paper's variant); without, it moves to the first that is better (the
    paper's "query until lower"), which takes fewer trials where most neighbours are worse than a good one.
    With several objectives an architecture is better if it is better in more of them.

    Args:
        space: Where to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        whole_neighbourhood: Try all neighbours before moving.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        whole_neighbourhood: bool = False,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        self.whole_neighbourhood = whole_neighbourhood
        self._place: tuple[Architecture, Fitness] | None = None  # where the walk stands
        self._best: tuple[Architecture, Fitness] | None = None  # where it would go next
        self._untried: list[Architecture] | None = None  # neighbours of the place, last first

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        scores = trial.evaluation.scores
        fitness = tuple(scores.get(name, math.nan) for name in self.objectives or tuple(sorted(scores)))
        if trial.evaluation.status is not Status.OK or not fitness or not all(map(math.isfinite, fitness)):
            return
        found = (trial.architecture, fitness)
        if self._place is None:
            self._place, self._untried = found, None
        elif not self.whole_neighbourhood:
            if _is_better(fitness, self._place[1]):
                self._place, self._untried = found, None
        elif _is_better(fitness, (self._best or self._place)[1]):
            self._best = found

    def state(self) -> dict[str, Any]:  # noqa: D102
        untried = None if self._untried is None else [list(arch.decisions) for arch in self._untried]
        return super().state() | {
            "place": _to_json(self._place),
            "best": _to_json(self._best),
            "untried": untried,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._place, self._best = self._from_json(state["place"]), self._from_json(state["best"])
        untried = state["untried"]
        if untried is not None:
            untried = [Architecture(self.space.name, tuple(decisions)) for decisions in untried]
        self._untried = untried

    def _propose(self) -> Architecture:
        while self._place is not None:
            if self._untried is None:
                self._untried = list(self.space.neighbours(self._place[0]))
                self._rng.shuffle(self._untried)
            while self._untried:
                neighbour = self._untried.pop()
                if self._claim(neighbour):
                    return neighbour
            self._place, self._best, self._untried = self._best, None, None
        return self._sample()

    def _from_json(self, value: list[Any] | None) -> tuple[Architecture, Fitness] | None:
        if value is None:
            return None
        decisions, fitness = value
        return Architecture(self.space.name, tuple(decisions)), tuple(fitness)


def _is_better(a: Fitness, b: Fitness) -> bool:
    first, second = mean_ranks([a, b])
    return first > second


def _to_json(value: tuple[Architecture, Fitness] | None) -> list[Any] | None:
    return None if value is None else [list(value[0].decisions), list(value[1])]
