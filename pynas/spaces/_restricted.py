"""A space in which some choices of some decisions are not taken."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces._part import ALLOWED, Part, part_of
from pynas.spaces.base import SearchSpace

LISTED = 100_000
"""Up to so many combinations of allowed choices are listed; sizes and equal networks are then exact."""

_DRAWS = 10_000

_FORMS: WeakKeyDictionary[SearchSpace, dict[tuple[int, ...], Architecture]] = WeakKeyDictionary()
"""Canonical forms of the architectures of a space, by decisions, as far as they were needed."""


class Restricted(Part):
    """The architectures of ``parent`` whose every decision is an allowed choice; see :func:`restrict`.

    They remain architectures of the parent, with its numbers of choices, texts, costs and networks. If the
    parent has no constraints, all combinations of allowed choices are members. Otherwise they are listed, up
    to ``LISTED`` combinations; beyond that :attr:`size` is None, and draws are repeated until one is valid.

    :meth:`canonical` is the parent's representative if that is a member. If it is none, it is the member of
    its class with the fewest parameters where the members are listed, and otherwise the architecture itself,
    so that two members may then make the same network.

    Attributes:
        allowed: The allowed choices of each decision, ascending.
    """

    def __init__(self, parent: SearchSpace, allowed: Sequence[Iterable[int]]) -> None:
        super().__init__(parent)
        self.allowed = checked_choices(parent, allowed)
        self._sets = tuple(map(frozenset, self.allowed))
        self._free = parent.size == math.prod(parent.num_choices)
        self.mutation_distance = max(len(self.allowed), parent.mutation_distance, 1)
        if self._members is not None and not self._members:
            raise UserError(f"allowed: no architecture of {parent.name} has only these choices")

    @cached_property
    def _members(self) -> tuple[Architecture, ...] | None:
        """All members in the order of their decisions; None if there are too many combinations."""
        if math.prod(map(len, self.allowed)) > LISTED:
            return None
        found = itertools.product(*self.allowed)
        valid = found if self._free else filter(self.parent.is_valid, found)
        return tuple([Architecture(self.name, decisions) for decisions in valid])

    @cached_property
    def _index(self) -> dict[Architecture, int]:
        return {arch: i for i, arch in enumerate(self._members or ())}

    @cached_property
    def _forms(self) -> dict[Architecture, Architecture]:
        """The representative of each class whose canonical form is no member."""
        known = _FORMS.setdefault(self.parent, {})  # restrictions of one space follow each other
        classes: dict[Architecture, list[Architecture]] = {}
        for arch in self._members or ():
            form = known.get(arch.decisions)
            if form is None:
                form = known[arch.decisions] = self.parent.canonical(arch)
            if not self.contains(form):
                classes.setdefault(form, []).append(arch)
        return {form: min(same, key=self.parent.params) for form, same in classes.items()}

    @property
    def size(self) -> int | None:
        """Number of members; None if the parent has constraints and there are too many to list."""
        if self._free:
            return math.prod(map(len, self.allowed))
        return None if self._members is None else len(self._members)

    @property
    def facts(self) -> dict[str, str]:
        """The allowed choices."""
        return {ALLOWED: hashlib.sha256(repr(self.allowed).encode()).hexdigest()[:16]}

    def contains(self, arch: Architecture) -> bool:
        """Whether ``arch`` is an architecture of the parent with allowed choices only."""
        return (
            arch.space == self.name
            and len(arch.decisions) == len(self._sets)
            and all(map(frozenset.__contains__, self._sets, arch.decisions))
            and (self._free or self.parent.is_valid(arch.decisions))
        )

    def check(self, arch: Architecture) -> tuple[int, ...]:
        """Return the decisions of a member; UserError that names the choice that is not allowed."""
        decisions = self.parent.check(arch)
        for i, (decision, allowed) in enumerate(zip(decisions, self._sets, strict=True)):
            if decision not in allowed:
                listed = ", ".join(map(str, self.allowed[i]))
                raise UserError(
                    f"arch: decision {i} of {self.parent.format(arch)} is {decision}; allowed here: {listed}"
                )
        return decisions

    def index(self, arch: Architecture) -> int:
        """Position in the order of the decisions."""
        decisions = self.check(arch)
        self._known_size()
        if not self._free:
            return self._index[arch]
        rank = 0
        for decision, allowed in zip(decisions, self.allowed, strict=True):
            rank = rank * len(allowed) + allowed.index(decision)
        return rank

    def from_index(self, index: int) -> Architecture:
        """The member at a position."""
        rank = self._check_index(index)
        if self._members is not None:
            return self._members[rank]
        digits = []
        for allowed in reversed(self.allowed):
            rank, digit = divmod(rank, len(allowed))
            digits.append(allowed[digit])
        return Architecture(self.name, tuple(reversed(digits)))

    # ---- moves -----------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a member uniformly.

        Raises:
            UserError: The members cannot be listed, and no combination that was drawn was valid.
        """
        if self._members is not None:
            return self._members[rng.randrange(len(self._members))]
        for _ in range(1 if self._free else _DRAWS):
            decisions = tuple([allowed[rng.randrange(len(allowed))] for allowed in self.allowed])
            if self._free or self.parent.is_valid(decisions):
                return Architecture(self.name, decisions)
        raise UserError(
            f"allowed: none of {_DRAWS:,} combinations of these choices is an architecture of {self.name}"
        )

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """The parent's neighbours that are members."""
        self.check(arch)
        return filter(self.contains, self.parent.neighbours(arch))

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """A neighbour, drawn uniformly; another random member if there is none."""
        near = list(self.neighbours(arch))
        if near:
            return rng.choice(near)
        if self.size == 1:
            raise UserError(f"only one architecture of {self.name} is allowed: there is nothing to mutate to")
        for _ in range(_DRAWS):
            other = self.sample(rng)
            if other != arch:
                return other
        raise UserError(f"allowed: no architecture beside {self.format(arch)} was found; allow more choices")

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of the members that make the same network; see the class."""
        self.check(arch)
        form = self.parent.canonical(arch)
        if self.contains(form):
            return form
        return arch if self._members is None else self._forms[form]


def checked_choices(space: SearchSpace, allowed: Sequence[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """The choices ascending and once each; UserError if they are not at least one for each decision."""
    counts = space.num_choices
    if not counts:
        raise UserError(
            f"space: {space.name} has no fixed number of decisions whose choices one could forbid"
        )
    found = tuple([tuple(sorted(set(choices))) for choices in allowed])
    if len(found) != len(counts):
        raise UserError(f"allowed: expected choices for {counted(len(counts), 'decision')}, got {len(found)}")
    for i, (choices, count) in enumerate(zip(found, counts, strict=True)):
        if not choices:
            raise UserError(f"allowed: decision {i} of {space.name} keeps no choice; allow at least one")
        for choice in choices:
            if type(choice) is not int or not 0 <= choice < count:
                raise UserError(f"allowed: choices of decision {i} are 0..{count - 1}, got {choice!r}")
    return found


def restrict(parent: SearchSpace, allowed: Sequence[Iterable[int]]) -> Restricted:
    """The architectures of ``parent`` that take only allowed choices, as a space under the parent's name.

    Args:
        parent: A space with a fixed number of decisions.
        allowed: For each decision the choices that may be taken, at least one.

    Raises:
        UserError: ``allowed`` does not fit the space, or no architecture is left.
    """
    if isinstance(parent, Restricted):
        both = zip(parent.allowed, checked_choices(parent, allowed), strict=True)
        parent, allowed = parent.parent, [set(one) & set(other) for one, other in both]
    return part_of(Restricted, parent, f"{parent.name} with fewer choices", allowed)
