"""The interface of search spaces, with one generic implementation over integer decisions."""

from __future__ import annotations

import difflib
import math
import operator
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pynas._errors import UserError
from pynas._plural import counted
from pynas._registry import Registry
from pynas.architecture import Architecture
from pynas.spaces._arguments import Noted

if TYPE_CHECKING:
    import torch
    from torch import nn

# Draws until a space with constraints gives up: if 1 % are valid, one call in 10^43 fails.
_MAX_DRAWS = 10_000


class InvalidArchitecture(UserError):  # noqa: N818
    """A combination of choices that makes no network, although each choice is one of the space.

    Raised by ``build`` and the counts. Sampling draws again, a search fails the trial and goes on.
    """


@dataclass(frozen=True, slots=True)
class Edge:
    """One labelled edge of a cell's graph, for drawing and for graph encoders."""

    source: int
    target: int
    label: str


class SearchSpace(Noted, ABC):
    """A finite set of architectures, each a tuple of ``len(num_choices)`` integer decisions.

    A space is pure data plus :meth:`build`: it holds no weights and imports torch only to build. A new space
    is one file that defines at least ``name``, ``summary``, :attr:`num_choices`, :meth:`params`, :meth:`macs`
    and :meth:`build`. It overrides

    - :meth:`is_valid` if decisions constrain each other,
    - :meth:`canonical` if different decisions give the same network,
    - :meth:`parse` and :meth:`format` if the field has a notation of its own,
    - ``index``, ``from_index`` and ``size`` together if there is a published index order, or if constraints
      exclude part of the product,
    - :meth:`example_inputs` and :meth:`output_shape` if inputs are not images or outputs not logits,
    - ``mutate``, ``neighbours`` and :meth:`distance` together if a move changes several decisions,
    - :meth:`replace` if a published evolution of the space makes children in another way than by moves.

    A space whose architectures vary in the number of decisions is an :class:`OpenEndedSpace`.

    Options of a space (channels, depth, task ...) are keyword-only arguments of its constructor, stored under
    their names, with the published values as defaults.

    Every method that takes an architecture raises UserError if it belongs to another space or has a decision
    out of range. All randomness comes from the caller: the same ``rng`` state gives the same architecture.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for ``pynas spaces``
    # Side of the images of :meth:`example_inputs`, in pixels: as small as the network allows, for tests and
    # probes. The size that published figures refer to is the default of ``image_size`` in :meth:`macs`.
    image_size: ClassVar[int] = 32
    # Labels of the nodes of :meth:`graph` in drawings; by default in, 1, 2, ..., out.
    node_labels: ClassVar[tuple[str, ...]] = ()
    # Largest ``distance`` between a mutant and its parent; the smallest is 1.
    mutation_distance: int = 1
    # Names of parts that published results are over, for :meth:`in_subset` and ``pynas rank --subset``.
    subsets: ClassVar[tuple[str, ...]] = ()
    # Whether a neighbour's neighbours include the architecture itself.
    reversible_moves: ClassVar[bool] = True

    def __init__(self) -> None:
        """A space without options; spaces with options override this."""

    @property
    @abstractmethod
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each decision: ``0 <= decisions[i] < num_choices[i]``."""

    # ---- the set ---------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """Number of architectures, by default the product of ``num_choices``; None without an index order."""
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
        num_choices = self.num_choices
        if len(decisions) != len(num_choices):
            expected = counted(len(num_choices), "decision")
            raise UserError(f"arch: {self.name} has {expected}, got {len(decisions)}")
        if not all(map(operator.lt, decisions, num_choices)) or min(decisions, default=0) < 0:
            for i, (decision, choices) in enumerate(zip(decisions, num_choices, strict=True)):
                if not 0 <= decision < choices:
                    raise UserError(
                        f"arch: decision {i} of {self.name} must be in 0..{choices - 1}, got {decision}"
                    )
        if not self.is_valid(decisions):
            raise UserError(f"arch: decisions {list(decisions)} break the constraints of {self.name}")
        return decisions

    def all(self) -> Iterator[Architecture]:
        """Every architecture once, in index order; UserError if the space has no index order."""
        return map(self.from_index, range(self._known_size()))

    def unique(self) -> Iterator[Architecture]:
        """The canonical representative of each equivalence class once, in index order."""
        return (arch for arch in self.all() if self.canonical(arch) == arch)

    def index(self, arch: Architecture) -> int:
        """Position of ``arch`` in ``0 .. size - 1``; by default, its decisions as mixed-radix digits."""
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

    def in_subset(self, arch: Architecture, subset: str) -> bool:
        """Whether ``arch`` is in a part of the space that has a name, one of :attr:`subsets`.

        Raises:
            UserError: The space has no part of this name.
        """
        known = f"expected one of {', '.join(self.subsets)}" if self.subsets else "it has none"
        raise UserError(f"subset: {self.name} has no subset {subset!r}; {known}")

    def _known_size(self) -> int:
        size = self.size
        if size is None:
            raise UserError(
                f"{self.name} has no finite number of architectures, so they have no index and cannot be "
                "listed: use sample() and mutate(), or search with the strategies random or evolution"
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
        num_choices = self.num_choices
        for _ in range(_MAX_DRAWS):
            decisions = tuple([rng.randrange(choices) for choices in num_choices])
            if self.is_valid(decisions):
                return Architecture(self.name, decisions)
        raise RuntimeError(f"{self.name}: no valid architecture in {_MAX_DRAWS} draws; override sample()")

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """Change exactly one decision, drawn uniformly, to another of its choices."""
        decisions = self.check(arch)
        num_choices = self.num_choices
        mutable = [i for i, choices in enumerate(num_choices) if choices > 1]
        if not mutable:
            raise UserError(f"{self.name} has a single architecture: there is nothing to mutate")
        for _ in range(_MAX_DRAWS):
            i = rng.choice(mutable)
            # Skipping over the present choice keeps the other choices equally likely.
            choice = rng.randrange(num_choices[i] - 1)
            choice += choice >= decisions[i]
            mutant = (*decisions[:i], choice, *decisions[i + 1 :])
            if self.is_valid(mutant):
                return Architecture(self.name, mutant)
        raise RuntimeError(f"{self.name}: {self.format(arch)} has no valid neighbour in {_MAX_DRAWS} draws")

    def replace(self, arch: Architecture, replacements: int, rng: random.Random) -> Architecture | None:
        """A child as the published evolution of this space makes it; by default, so many moves by mutate.

        It may be ``arch`` itself. None if it is outside the space: the published search then draws another
        parent.
        """
        for _ in range(replacements):
            arch = self.mutate(arch, rng)
        return arch

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """Uniform crossover: each decision from ``a`` or ``b`` with equal probability.

        If constraints reject every child drawn, the child is ``a``.
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
        """Number of moves from ``a`` to ``b``: 0 if equal, 1 if ``b`` is one of ``neighbours(a)``.

        By default, the number of decisions in which they differ.
        """
        return sum(x != y for x, y in zip(self.check(a), self.check(b), strict=True))

    # ---- identity and notation -------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of all architectures that give the same network; by default ``arch`` itself.

        No other of them has fewer parameters.
        """
        self.check(arch)
        return arch

    def format(self, arch: Architecture) -> str:
        """``arch`` as one line of text that :meth:`parse` reads; by default its decisions, ``3-0-1``."""
        return "-".join(map(str, self.check(arch)))

    def parse(self, text: str) -> Architecture:
        """Read an architecture string; surrounding blanks are ignored.

        Raises:
            UserError: The string is malformed; the message points at the first bad token and says what is
                allowed there.
        """
        text = text.strip()
        decisions = []
        start = 0
        for i, token in enumerate(text.split("-")):
            if i >= len(self.num_choices):
                expected = f"the end of the text after {counted(len(self.num_choices), 'decision')}"
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
        """The error for a malformed string, with carets under ``text[start : start + length]``."""
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
        """The labelled edges of the searched cell, whose input is node 0; empty if there is no cell."""
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
        """Shape of the network's output for ``example_inputs(batch)``; by default logits of images."""
        return (batch, num_classes)

    @abstractmethod
    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Number of parameters of :meth:`build`'s network with ``prune=False``."""

    @abstractmethod
    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of the convolutions and linear layers in the forward pass of one square image.

        A multiply-add counts as one; normalisation, activation, pooling and sums do not count.
        NAS-Bench-201's tables and the constraint ``flops`` of pynas call this FLOPs. It is half of the FLOPs
        that torch's counter reports. A space whose inputs are not images documents what ``image_size`` means
        there.
        """

    @abstractmethod
    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """A new network of plain PyTorch modules, ``[B, in_channels, H, W] -> [B, num_classes]``.

        Spaces with other inputs or outputs have the shapes of :meth:`example_inputs` and
        :meth:`output_shape`.

        Initialisation draws from torch's global generator: seed it before the call. ``prune=True`` leaves out
        what cannot influence the output. The parameters are then a subset, with other initial values, since
        fewer numbers are drawn.
        """


class Ready:
    """Makes always the same space, and takes no options: how a space that is made already is registered."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def __call__(self) -> SearchSpace:
        """The space."""
        return self.space


def maker_of(name: str, found: object) -> Callable[..., SearchSpace]:
    """What is registered for a space or a class of spaces; TypeError for anything else."""
    if isinstance(found, SearchSpace):
        return Ready(found)
    if isinstance(found, type) and issubclass(found, SearchSpace):
        return found
    raise TypeError(f"expected a pynas.spaces.SearchSpace, or a class of them, got {type(found).__name__}")


SPACES: Registry[Callable[..., SearchSpace]] = Registry("search space", "pynas.spaces", maker_of)


def check_positive(**arguments: int) -> None:
    """Raise UserError that names the first argument which is not a positive integer."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name}: expected a positive integer, got {value!r}")
