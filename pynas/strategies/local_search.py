"""Local search: move to better neighbours until there are none, then restart elsewhere.

C. White, S. Nolen, Y. Savani: Exploring the Loss Landscape in Neural Architecture Search. UAI 2021, arXiv
2005.02960.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas.architecture import Architecture
from pynas.ranking.pareto import mean_ranks
from pynas.strategies._base import Feasible, SearchStrategy
from pynas.strategies._members import Member, from_json, member_of, to_json
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class LocalSearch(SearchStrategy):
    """Proposes the neighbours of the best architecture of the current walk, in random order.

    The walk moves to a better neighbour. It ends if no untried neighbour is left, and the next walk starts at
    a random architecture. With ``whole_neighbourhood`` it tries every neighbour and then moves to the best of
    them (the paper's variant). Without, it moves to the first better one (the paper's "query until lower"),
    which takes fewer trials if most neighbours of a good architecture are worse. With several objectives, an
    architecture is better if it is better in more of them.

    Args:
        space: The space to search.
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
        self._place: Member | None = None  # where the walk is
        self._best: Member | None = None  # where it would move next
        self._untried: list[Architecture] | None = None  # its neighbours, in reverse order

    def tell(self, trial: Trial) -> None:  # noqa: D102
        super().tell(trial)
        found = member_of(trial, self.objectives)
        if found is None:
            return
        if self._place is None:
            self._place, self._untried = found, None
        elif not self.whole_neighbourhood:
            if _is_better(found, self._place):
                self._place, self._untried = found, None
        elif _is_better(found, self._best or self._place):
            self._best = found

    def state(self) -> dict[str, Any]:  # noqa: D102
        untried = None if self._untried is None else [list(arch.decisions) for arch in self._untried]
        return super().state() | {
            "place": to_json([self._place] if self._place else []),
            "best": to_json([self._best] if self._best else []),
            "untried": untried,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._place = next(iter(from_json(self.space.name, state["place"])), None)
        self._best = next(iter(from_json(self.space.name, state["best"])), None)
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


def _is_better(a: Member, b: Member) -> bool:
    first, second = mean_ranks([a[1], b[1]])
    return first > second
