"""What every search space can do, written once over integer decisions."""

from __future__ import annotations

import difflib
import inspect
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pynas._errors import UserError
from pynas._identity import brief
from pynas._registry import Registry
from pynas.architecture import Architecture

if TYPE_CHECKING:
    import torch
    from torch import nn

# How often a space with constraints may redraw before it gives up: a valid share of 1 % fails once in 10^43
# draws.
_MAX_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Edge:
    """One labelled edge of a cell's graph, for drawing and for graph encoders."""

    source: int
    target: int
    label: str


class _Noted:
    """Notes what a user's own space is made with: it tells it from others of its name in a store.

    Above :class:`SearchSpace`, so that the signature of a space is that of its ``__init__``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        space = super().__new__(cls)
        if (args or kwargs) and not is_published(cls):
            space.__dict__[ARGUMENTS] = _arguments(cls, args, kwargs)
        return space


class SearchSpace(_Noted, ABC):
    """A finite set of architectures, each a tuple of ``len(num_choices)`` integer decisions.

    A space is pure data plus :meth:`build`: it holds no weights and imports torch only to build. A new space
    is one file: ``name``, ``summary``, :attr:`num_choices`, :meth:`params`, :meth:`macs` and :meth:`build`
    are enough. Override :meth:`is_valid` where decisions constrain each other, :meth:`canonical` where
    different decisions give the same network, :meth:`parse` and :meth:`format` where the field has its own
    notation, and ``index``/``from_index``/``size`` together where the index order is given or constraints
    thin the product out. Where the inputs are not images or the outputs not logits, override
    :meth:`example_inputs` and :meth:`output_shape`. Where one move changes several decisions, override
    ``mutate``, ``neighbours`` and :meth:`distance` together. A space without a finite number of decisions is
    an :class:`OpenEndedSpace`.

    Options of a space (channels, depth, task ...) are keyword-only arguments of its constructor, stored under
    their names, with the published values as defaults.

    Every method that takes an architecture raises UserError if it belongs to another space or has a decision
    out of range. Randomness is always the caller's: the same ``rng`` state gives the same architecture.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for ``pynas spaces``
    # Pixels along a side of :meth:`example_inputs`: as few as the network takes, since tests and probes use
    # them. What published figures are about is the default of ``image_size`` in :meth:`macs`.
    image_size: ClassVar[int] = 32
    # What drawings call the nodes of :meth:`graph`; by default in, 1, 2, ..., out.
    node_labels: ClassVar[tuple[str, ...]] = ()
    # How many moves a mutation makes at most; a mutant is at ``distance`` 1 to this from its parent.
    mutation_distance: int = 1
    # Whether a neighbour's neighbours include the architecture itself.
    reversible_moves: ClassVar[bool] = True

    def __init__(self) -> None:
        """A space without options; those that have some replace this."""

    @property
    @abstractmethod
    def num_choices(self) -> tuple[int, ...]:
        """How many choices each decision has, ``0 <= decisions[i] < num_choices[i]``."""

    # ---- the set ---------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """Number of architectures: the product of ``num_choices``; None where there is no index order."""
        return math.prod(self.num_choices)

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether in-range ``decisions`` satisfy the constraints of the space; there are none by default."""
        return True

    def check(self, arch: Architecture) -> tuple[int, ...]:
        """Return the decisions of ``arch``, or raise UserError that says why it is not in this space."""
        decisions = arch.decisions
        if arch.space != self.name:
            raise UserError(
                f"arch: expected an architecture of space {self.name!r}, got one of {arch.space!r}"
            )
        if len(decisions) != len(self.num_choices):
            raise UserError(f"arch: {self.name} has {len(self.num_choices)} decisions, got {len(decisions)}")
        for i, (decision, choices) in enumerate(zip(decisions, self.num_choices, strict=True)):
            if not 0 <= decision < choices:
                raise UserError(
                    f"arch: decision {i} of {self.name} must be in 0..{choices - 1}, got {decision}"
                )
        if not self.is_valid(decisions):
            raise UserError(f"arch: decisions {list(decisions)} break the constraints of {self.name}")
        return decisions

    def all(self) -> Iterator[Architecture]:
        """Every architecture once, in index order; UserError where there is none."""
        return map(self.from_index, range(self._known_size()))

    def unique(self) -> Iterator[Architecture]:
        """The canonical representative of every equivalence class once, in index order."""
        return (arch for arch in self.all() if self.canonical(arch) == arch)

    def index(self, arch: Architecture) -> int:
        """Position of ``arch`` in ``0 .. size - 1``: by default its decisions read as mixed-radix digits."""
        rank = 0
        for decision, choices in zip(self.check(arch), self.num_choices, strict=True):
            rank = rank * choices + decision
        return rank

    def from_index(self, index: int) -> Architecture:
        """Inverse of :meth:`index`; UserError unless ``0 <= index < size``."""
        rank = self._check_index(index)
        digits = []
        for choices in reversed(self.num_choices):
            rank, digit = divmod(rank, choices)
            digits.append(digit)
        return Architecture(self.name, tuple(reversed(digits)))

    def _known_size(self) -> int:
        size = self.size
        if size is None:
            raise UserError(
                f"{self.name} has no finite number of architectures, so none has an index and they cannot be "
                "listed: sample() and mutate() it, or search it with random search or evolution"
            )
        return size

    def _check_index(self, index: int) -> int:
        size = self._known_size()
        if not 0 <= index < size:
            raise UserError(f"index: {self.name} has indices 0..{size - 1}, got {index}")
        return index

    # ---- moves -----------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> Architecture:
        """Draw uniformly from the space."""
        for _ in range(_MAX_DRAWS):
            decisions = tuple([rng.randrange(choices) for choices in self.num_choices])
            if self.is_valid(decisions):
                return Architecture(self.name, decisions)
        raise RuntimeError(f"{self.name}: no valid architecture in {_MAX_DRAWS} draws; override sample()")

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """Change exactly one decision, drawn uniformly, to another of its choices."""
        decisions = self.check(arch)
        mutable = [i for i, choices in enumerate(self.num_choices) if choices > 1]
        if not mutable:
            raise UserError(f"{self.name} has a single architecture: there is nothing to mutate")
        for _ in range(_MAX_DRAWS):
            i = rng.choice(mutable)
            # Skipping over the present choice keeps the other choices equally likely.
            choice = rng.randrange(self.num_choices[i] - 1)
            choice += choice >= decisions[i]
            mutant = (*decisions[:i], choice, *decisions[i + 1 :])
            if self.is_valid(mutant):
                return Architecture(self.name, mutant)
        raise RuntimeError(f"{self.name}: {self.format(arch)} has no valid neighbour in {_MAX_DRAWS} draws")

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """Uniform crossover: each decision from ``a`` or ``b`` with equal probability.

        Where constraints reject every child drawn, the child is ``a``.
        """
        parents = list(zip(self.check(a), self.check(b), strict=True))
        for _ in range(_MAX_DRAWS):
            child = tuple([pair[rng.getrandbits(1)] for pair in parents])
            if self.is_valid(child):
                return Architecture(self.name, child)
        return a

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture that differs from ``arch`` in exactly one decision."""
        decisions = self.check(arch)
        for i, choices in enumerate(self.num_choices):
            for choice in range(choices):
                moved = (*decisions[:i], choice, *decisions[i + 1 :])
                if choice != decisions[i] and self.is_valid(moved):
                    yield Architecture(self.name, moved)

    def distance(self, a: Architecture, b: Architecture) -> int:
        """Number of moves from ``a`` to ``b``, 0 if they are equal, 1 if ``b`` is one of ``neighbours(a)``.

        By default the number of decisions in which they differ.
        """
        return sum(x != y for x, y in zip(self.check(a), self.check(b), strict=True))

    # ---- identity and notation -------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of all architectures that are the same network; by default ``arch``.

        It has no more parameters than any other of them.
        """
        self.check(arch)
        return arch

    def format(self, arch: Architecture) -> str:
        """One-line text of ``arch`` that :meth:`parse` reads back; by default its decisions, ``3-0-1``."""
        return "-".join(map(str, self.check(arch)))

    def parse(self, text: str) -> Architecture:
        """Read an architecture string; blanks around it are ignored.

        A malformed string raises UserError that points at the first bad token and says what is allowed there.
        """
        text = text.strip()
        decisions = []
        start = 0
        for i, token in enumerate(text.split("-")):
            if i >= len(self.num_choices):
                expected = f"the end of the text after {len(self.num_choices)} decisions"
                raise self._parse_error(text, start, len(text) - start, expected)
            if not (token.isascii() and token.isdigit()) or int(token) >= self.num_choices[i]:
                raise self._parse_error(
                    text, start, len(token), f"an integer in 0..{self.num_choices[i] - 1}"
                )
            decisions.append(int(token))
            start += len(token) + 1
        if len(decisions) < len(self.num_choices):
            raise self._parse_error(text, len(text), 0, f"'-' and decision {len(decisions)}")
        arch = Architecture(self.name, tuple(decisions))
        self.check(arch)
        return arch

    def _parse_error(
        self, text: str, start: int, length: int, expected: str, choices: tuple[str, ...] = ()
    ) -> UserError:
        """Explain a malformed architecture string with a caret under ``text[start : start + length]``."""
        token = text[start : start + length]
        found = repr(token) if token else "the end of the text" if start >= len(text) else "nothing"
        message = f"not a {self.name} architecture: at position {start} expected {expected}, found {found}"
        close = difflib.get_close_matches(token, choices, n=1)
        if close:
            message += f" (did you mean {close[0]!r}?)"
        shown = "".join(character if character.isprintable() else "?" for character in text)
        return UserError(f"{message}\n  {shown}\n  {' ' * start}{'^' * max(1, length)}")

    def encode(self, arch: Architecture) -> list[float]:
        """One-hot encoding, decision after decision: ``sum(num_choices)`` zeros and ones."""
        code: list[float] = []
        for decision, choices in zip(self.check(arch), self.num_choices, strict=True):
            code += [float(choice == decision) for choice in range(choices)]
        return code

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The labelled edges of the searched cell, its input node 0; empty where there is no cell."""
        self.check(arch)
        return ()

    # ---- the network -----------------------------------------------------------------------------

    def example_inputs(
        self, batch: int, in_channels: int = 3, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Random inputs for :meth:`build`'s network, ``[batch, ...]``.

        By default images ``[batch, in_channels, image_size, image_size]``, float32, uniform in [0, 1).
        """
        import torch

        return torch.rand(batch, in_channels, self.image_size, self.image_size, generator=generator)

    def output_shape(self, batch: int, num_classes: int = 10) -> tuple[int, ...]:
        """Shape of what the network makes of ``example_inputs(batch)``; by default logits of an image."""
        return (batch, num_classes)

    @abstractmethod
    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Number of parameters of :meth:`build`'s network with ``prune=False``."""

    @abstractmethod
    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of the convolutions and linear layers of one forward pass of one square image.

        One multiply-add counts once; normalisation, activation, pooling and sums count nothing. This is what
        NAS-Bench-201's tables call FLOPs, and what the constraint key ``flops`` means in pynas. It is half of
        what torch's own counter says of one sample. A space whose inputs are not images says what
        ``image_size`` stands for.
        """

    @abstractmethod
    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """A fresh network of plain PyTorch modules, ``[B, in_channels, H, W] -> [B, num_classes]``.

        Elsewhere what :meth:`example_inputs` and :meth:`output_shape` say.

        Initialisation is PyTorch's own and draws from torch's global generator: seed it before the call.
        ``prune=True`` leaves out what cannot influence the output, so its parameters are a subset and, drawn
        in the same order with gaps, not the same numbers.
        """


ARGUMENTS = "_made_with"
"""The attribute with the description of the arguments that a user's own space was made with."""


def is_published(kind: type) -> bool:
    """Whether a space is one of pynas's own, which its name and options identify."""
    return kind.__module__.startswith("pynas.spaces.")


def _arguments(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        given = inspect.signature(kind).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the constructor says it better, or has no signature
        given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    return {name: brief(value) for name, value in given.items()}


SPACES: Registry[type[SearchSpace]] = Registry("search space")


def check_positive(**arguments: int) -> None:
    """Raise UserError naming the first argument that is not a positive integer."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name}: expected a positive integer, got {value!r}")
