"""Random search without replacement."""

from __future__ import annotations

from pynas.architecture import Architecture
from pynas.strategies._base import SearchStrategy


class RandomSearch(SearchStrategy):
    """Samples the space and skips architectures whose canonical form it has proposed before.

    A canonical form comes up with the probability of its members in ``space.sample`` until so few are left
    that the space is enumerated; from then on all that are left are equally likely.
    """

    def _propose(self) -> Architecture:
        return self._sample()
