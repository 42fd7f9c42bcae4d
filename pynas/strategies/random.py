"""Random search without replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pynas.architecture import Architecture
from pynas.strategies._base import Feasible, SearchStrategy

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class RandomSearch(SearchStrategy):
    """Samples the space and skips architectures whose canonical form was proposed before.

    A canonical form is drawn with the probability of its members in ``space.sample``. When few are left, the
    space is enumerated, and all remaining ones are equally likely.

    Args:
        space: The space to search.
        seed: Seed of the strategy's own random generator.
        feasible: The hard constraints as a predicate; None allows every architecture.
        objectives: Ignored: random search does not use scores.
        distinct: Whether architectures of equal canonical form count as one. If False, every architecture can
            be drawn once: an unbiased sample of the space for statistics.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
        distinct: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        self.distinct = distinct

    def _key(self, architecture: Architecture) -> tuple[int, ...]:
        return super()._key(architecture) if self.distinct else architecture.decisions

    def _propose(self) -> Architecture:
        return self._sample()
