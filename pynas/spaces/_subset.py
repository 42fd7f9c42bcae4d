"""Some architectures of a space as a space of their own, which every strategy can search."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces._part import ORDER, SUBSET, Part, part_of
from pynas.spaces.base import SearchSpace


class Subset(Part):
    """The space of given architectures of ``parent``; make one with :func:`subset`.

    They remain architectures of the parent, with its names, texts, tables, costs and networks. Indices are
    positions in the given order. Neighbours are the parent's neighbours that belong to the subset. A mutation
    goes to one of these; if there are none, to one of the nearest members by the parent's ``distance``, so
    that a search can leave isolated members.
    """

    def __init__(self, parent: SearchSpace, architectures: Iterable[Architecture]) -> None:
        for architecture in (members := tuple(dict.fromkeys(a.plain for a in architectures))):
            parent.check(architecture)
        if not members:
            raise UserError("architectures: expected at least one, got none")
        super().__init__(parent)
        self.members = members
        self._index = {architecture: i for i, architecture in enumerate(members)}
        classes: dict[Architecture, list[Architecture]] = {}
        for architecture in members:
            classes.setdefault(parent.canonical(architecture), []).append(architecture)
        self._forms = {
            form: form if form in self._index else min(same, key=parent.params)
            for form, same in classes.items()
        }
        self.mutation_distance = max(max(parent.num_choices, default=0), len(parent.num_choices), 1)

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell this subset from others of its parent."""
        return _digest(sorted(self.parent.format(architecture) for architecture in self.members))

    @property
    def facts(self) -> dict[str, str]:
        """The members, and these in their order, on which indices and draws depend."""
        return {SUBSET: self.digest, ORDER: _digest(map(self.parent.format, self.members))}

    def contains(self, arch: Architecture) -> bool:
        """Whether ``arch`` is a member."""
        return arch in self._index

    def check(self, arch: Architecture) -> tuple[int, ...]:
        """Return the decisions of a member; UserError for any other architecture."""
        decisions = self.parent.check(arch)
        if arch not in self._index:
            raise UserError(f"arch: {self.parent.format(arch)} is not among the {self.size:,} of this subset")
        return decisions

    def index(self, arch: Architecture) -> int:
        """Position among the members."""
        self.check(arch)
        return self._index[arch]

    def from_index(self, index: int) -> Architecture:
        """The member at a position."""
        return self.members[self._check_index(index)]

    # ---- moves -----------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a member uniformly."""
        return self.members[rng.randrange(len(self.members))]

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """The parent's neighbours that are members."""
        self.check(arch)
        return (neighbour for neighbour in self.parent.neighbours(arch) if neighbour in self._index)

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """A neighbour, drawn uniformly; one of the nearest other members if there is none."""
        near = list(self.neighbours(arch))
        if not near:
            if self.size == 1:
                raise UserError(f"this subset of {self.name} has a single architecture: nothing to mutate to")
            distances = [(self.parent.distance(arch, other), other) for other in self.members]
            least = min(d for d, other in distances if other != arch)
            near = [other for d, other in distances if d == least and other != arch]
        return rng.choice(near)

    def canonical(self, arch: Architecture) -> Architecture:
        """The parent's canonical form; if that is no member, the smallest member of its class."""
        self.check(arch)
        return self._forms[self.parent.canonical(arch)]


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def subset(parent: SearchSpace, architectures: Iterable[Architecture]) -> Subset:
    """The space of some architectures of ``parent``, under the parent's name.

    Raises:
        UserError: There are no architectures, or one is not of ``parent``.
    """
    return part_of(Subset, parent, f"some architectures of {parent.name}", architectures)
