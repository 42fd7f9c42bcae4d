"""Spaces whose architectures vary in the number of decisions: networks that grow."""

from __future__ import annotations

from abc import abstractmethod
from typing import NoReturn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SearchSpace


class OpenEndedSpace(SearchSpace):
    """A space whose architectures vary in the number of decisions, so it has no size and no index order.

    ``num_choices`` is empty, ``size`` is None, and ``index``, ``from_index``, ``all`` and ``unique`` raise
    UserError. A space defines :meth:`problem` (what is wrong with decisions), ``sample``, ``mutate``,
    ``crossover``, ``neighbours``, :meth:`distance`, ``format``, ``parse`` and ``encode`` itself.
    """

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Empty: the decisions vary in number."""
        return ()

    @property
    def size(self) -> None:
        """None: there is no bound."""
        return None

    @abstractmethod
    def problem(self, decisions: tuple[int, ...]) -> str:
        """Why ``decisions``, any integers, are not in the space, for an error message; empty if they are."""

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether :meth:`problem` finds nothing."""
        return not self.problem(decisions)

    def check(self, arch: Architecture) -> tuple[int, ...]:
        """Return the decisions of ``arch``, or raise UserError that says why it is not in this space."""
        if arch.space != self.name:
            raise UserError(
                f"arch: expected an architecture of space {self.name!r}, got one of {arch.space!r}"
            )
        problem = self.problem(arch.decisions)
        if problem:
            raise UserError(f"arch: not a {self.name} architecture: {problem}")
        return arch.decisions

    def index(self, arch: Architecture) -> int:
        """There is none: UserError."""
        self.check(arch)
        self._refuse()

    def from_index(self, index: int) -> Architecture:
        """There is none: UserError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        self._known_size()
        raise AssertionError("a space without a size has no index")
