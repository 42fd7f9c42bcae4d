"""A part of a space as a space of its own; what does not depend on the membership is the parent's."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from pynas.architecture import Architecture
from pynas.spaces.base import Edge, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import nn


class Part(SearchSpace):
    """Some architectures of ``parent``, under its name, with its texts, tables, costs and networks.

    A kind of part says which (:meth:`check`, :meth:`contains`), lists or counts them, and how to draw and to
    move among them.
    """

    def __init__(self, parent: SearchSpace) -> None:
        self.parent = parent

    @property
    def num_choices(self) -> tuple[int, ...]:
        """The parent's; not every combination is a member."""
        return self.parent.num_choices

    @abstractmethod
    def contains(self, arch: Architecture) -> bool:
        """Whether ``arch`` is a member."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What tells this part from others of its parent, by the keys of :mod:`pynas.spaces.identity`."""

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether ``decisions`` are those of a member."""
        return self.contains(Architecture(self.name, decisions))

    def distance(self, a: Architecture, b: Architecture) -> int:
        """The parent's."""
        self.check(a)
        self.check(b)
        return self.parent.distance(a, b)

    def format(self, arch: Architecture) -> str:
        """The parent's text."""
        self.check(arch)
        return self.parent.format(arch)

    def parse(self, text: str) -> Architecture:
        """Read a parent's text; UserError if it is no member."""
        arch = self.parent.parse(text)
        self.check(arch)
        return arch

    def encode(self, arch: Architecture) -> list[float]:
        """The parent's encoding."""
        self.check(arch)
        return self.parent.encode(arch)

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The parent's graph."""
        self.check(arch)
        return self.parent.graph(arch)

    def example_inputs(
        self, batch: int, in_channels: int = 3, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """The parent's inputs."""
        return self.parent.example_inputs(batch, in_channels, generator)

    def output_shape(self, batch: int, num_classes: int = 10) -> tuple[int, ...]:
        """The parent's outputs."""
        return self.parent.output_shape(batch, num_classes)

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """The parent's count."""
        self.check(arch)
        return self.parent.params(arch, num_classes, in_channels)

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """The parent's count."""
        self.check(arch)
        return self.parent.macs(arch, num_classes, image_size, in_channels)

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """The parent's network."""
        self.check(arch)
        return self.parent.build(arch, num_classes, in_channels, prune)


SUBSET, ORDER, ALLOWED = "subset", "order", "allowed"
"""Keys of facts: the members of a subset, these in order, the allowed choices of a restriction."""

_P = TypeVar("_P", bound=Part)


def facts_of(space: SearchSpace) -> dict[str, str]:
    """What tells a part, and the parts that it is a part of, from the whole space; {} for a whole one."""
    return facts_of(space.parent) | space.facts if isinstance(space, Part) else {}


def whole(space: SearchSpace) -> SearchSpace:
    """The space that a part is a part of; a whole one itself."""
    return whole(space.parent) if isinstance(space, Part) else space


def part_of(kind: type[_P], parent: SearchSpace, summary: str, *arguments: Any) -> _P:
    """A part of ``parent`` that has its name and the other facts that a class has."""
    facts = {
        "__module__": kind.__module__,
        "name": parent.name,
        "summary": summary,
        "image_size": parent.image_size,
        "node_labels": parent.node_labels,
        "reversible_moves": parent.reversible_moves,
    }
    made: type[_P] = type(kind.__name__, (kind,), facts)
    return made(parent, *arguments)
