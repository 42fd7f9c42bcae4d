"""Every architecture once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pynas.architecture import Architecture
from pynas.strategies._base import ENUMERATION_LIMIT, SearchStrategy


class ExhaustiveSearch(SearchStrategy):
    """Walks through the space in its own order; proposes the first feasible member of each canonical form."""

    _position = 0
    _walk: Iterator[Architecture] | None = None

    def _propose(self) -> Architecture:
        if self._walk is None:
            self._walk = itertools.islice(self.space.all(), self._position, None)
        # A space too large to walk to its end must not hang a search whose constraints nothing meets.
        for architecture in itertools.islice(self._walk, ENUMERATION_LIMIT):
            self._position += 1
            if self._claim(architecture):
                return architecture
        raise self._nothing_left(f"the first {self._position:,} of {self.space.size:,} checked")

    def state(self) -> dict[str, Any]:  # noqa: D102
        return super().state() | {"position": self._position}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        super().load_state(state)
        self._position, self._walk = int(state["position"]), None
