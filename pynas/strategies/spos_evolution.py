"""The evolutionary search of Single Path One-Shot.

Z. Guo, X. Zhang, H. Mu, W. Heng, Z. Liu, Y. Wei, J. Sun: Single Path One-Shot Neural Architecture Search with
Uniform Sampling. ECCV 2020, arXiv 1904.00420; sizes and order of the steps are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, ranked, to_json
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

Mutation = Literal["genes", "moves"]

ATTEMPTS_PER_CHILD = 10
DRAWS_PER_MUTANT = 20


class SPOSEvolution(SearchStrategy):
    """Generations of mutants and crossovers of the best architectures so far; never repeats one.

    The first generation is random. Each following one has ``mutations`` mutants and ``crossovers`` uniform
    crossovers of random members of the best ``top``. Random architectures fill it up if too few of these are
    new and feasible. As in the authors' code, the best are taken from all generations: parents never age.
    With several objectives, they have the highest mean rank; of equal ones the earlier is better, where the
    authors compare the top-5 error next.

    ``mutation`` says how a mutant is made:

    - ``genes``: each decision is drawn anew with ``mutation_probability``, from all its choices, the present
      one too; what is not valid or known already is drawn again from another parent, as in the authors' code.
      Of the 20 genes with four choices of ``spos_shufflenet`` it changes 1.90 on average.
    - ``moves``: as many moves of the space as decisions are drawn with ``mutation_probability``, at least
      one; of 20 genes 2.1 on average. So did versions without this option, and so do spaces without a fixed
      number of decisions in any case.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Names of the scores to maximise; empty means all scores of each evaluation.
        population_size: Architectures in a generation (50; the authors run 20 generations).
        top: Parents kept (10).
        mutations: Mutants in a generation (25).
        crossovers: Crossovers in a generation (25).
        mutation_probability: Probability of changing a decision (0.1).
        mutation: ``genes`` or ``moves``.
    """

    added: ClassVar[Mapping[str, Any]] = {"mutation": "moves"}

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        population_size: int = 50,
        top: int = 10,
        mutations: int = 25,
        crossovers: int = 25,
        mutation_probability: float = 0.1,
        mutation: Mutation = "genes",
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        for name, value in (("population_size", population_size), ("top", top)):
            if value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        if min(mutations, crossovers) < 0 or mutations + crossovers > population_size:
            raise UserError(
                f"mutations, crossovers: expected 0 or more and at most population_size={population_size} "
                f"together, got {mutations} and {crossovers}"
            )
        if not 0 < mutation_probability <= 1:
            raise UserError(
                f"mutation_probability: expected a probability above 0, got {mutation_probability}"
            )
        if mutation not in get_args(Mutation):
            raise UserError(f"mutation: expected one of {', '.join(get_args(Mutation))}, got {mutation!r}")
        self.mutation = mutation
        self.population_size = population_size
        self.top = top
        self.mutations = mutations
        self.crossovers = crossovers
        self.mutation_probability = mutation_probability
        self._parents: list[Member] = []
        self._generation: list[Member] = []
        self._proposed = 0  # number of proposals in this generation
        self._told = 0

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        member = member_of(trial, self.objectives)
        if member is not None:
            self._generation.append(member)
        self._told += 1
        if self._told >= self.population_size:
            self._parents = ranked([*self._parents, *self._generation])[: self.top]
            self._generation, self._proposed, self._told = [], 0, 0

    def state(self) -> dict[str, Any]:  # noqa: D102
        members = {"parents": to_json(self._parents), "generation": to_json(self._generation)}
        return super().state() | members | {"proposed": self._proposed, "told": self._told}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._parents = from_json(self.space.name, state["parents"])
        self._generation = from_json(self.space.name, state["generation"])
        self._proposed, self._told = int(state["proposed"]), int(state["told"])

    def _propose(self) -> Architecture:
        place, self._proposed = self._proposed, self._proposed + 1
        if self._parents and self.space.size != 1 and place < self.mutations + self.crossovers:
            for _ in range(ATTEMPTS_PER_CHILD):
                child = self._mutant() if place < self.mutations else self._crossover()
                if self._claim(child):
                    return child
        return self._sample()

    def _mutant(self) -> Architecture:
        if self.mutation == "genes" and self.space.num_choices:
            return self._redrawn()
        child = self._rng.choice(self._parents)[0]
        decisions = range(len(child.decisions))
        for _ in range(max(1, sum(self._rng.random() < self.mutation_probability for _ in decisions))):
            child = self.space.mutate(child, self._rng)
        return child

    def _redrawn(self) -> Architecture:
        """A parent with some decisions drawn anew; a parent as it is where no draw was another valid one."""
        for _ in range(DRAWS_PER_MUTANT):
            parent = self._rng.choice(self._parents)[0]
            decisions = tuple(
                self._rng.randrange(choices) if self._rng.random() < self.mutation_probability else decision
                for decision, choices in zip(parent.decisions, self.space.num_choices, strict=True)
            )
            if decisions != parent.decisions and self.space.is_valid(decisions):
                return Architecture(parent.space, decisions)
        return parent

    def _crossover(self) -> Architecture:
        first, second = self._rng.choice(self._parents)[0], self._rng.choice(self._parents)[0]
        return self.space.crossover(first, second, self._rng)
