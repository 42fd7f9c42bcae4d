"""Exhaustive search: every architecture once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies._base import ENUMERATION_LIMIT, Feasible, SearchStrategy

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class ExhaustiveSearch(SearchStrategy):
    """Enumerates the space in index order; proposes the first feasible architecture of each canonical form.

    Raises:
        UserError: The space is open-ended, so it has no index order.
    """

    _position = 0
    _walk: Iterator[Architecture] | None = None

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        objectives: Sequence[str] = (),
    ) -> None:
        if space.size is None:
            raise UserError(
                f"strategy: exhaustive search cannot list the open-ended space {space.name}; use random or "
                "evolution"
            )
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)

    def _propose(self) -> Architecture:
        if self._walk is None:
            self._walk = itertools.islice(self.space.all(), self._position, None)
        # If no architecture meets the constraints, a search of a very large space must not hang.
        for architecture in itertools.islice(self._walk, ENUMERATION_LIMIT):
            self._position += 1
            if self._claim(architecture):
                return architecture
        raise self._nothing_left(f"checked the first {self._position:,} of {self.space.size:,}")

    def state(self) -> dict[str, Any]:  # noqa: D102
        return super().state() | {"position": self._position}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._position, self._walk = int(state["position"]), None
