"""Networks grown layer by layer, in the manner of EPNAS.

Source of the idea: Y. Zhou et al., "EPNAS: Efficient Progressive Neural Architecture Search", BMVC 2019,
arXiv:1907.04648, which searches layer by layer over operations, widths, kernel sizes and skip connections.
The paper has neither public code nor a list of its choices: the choices here are pynas's own.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from pynas.architecture import Architecture
from pynas.spaces._open_ended import OpenEndedSpace
from pynas.spaces.base import Edge, check_positive
from pynas.spaces.epnas.layers import CONVOLUTIONS, OPERATIONS, WIDTHS, Layer, layers_of, plans_of

if TYPE_CHECKING:
    from torch import nn

_SAMPLED_LAYERS: Final = 8
_MAX_DRAWS: Final = 10_000
_WORD: Final = re.compile(r"[^:+|]*")


class EPNAS(OpenEndedSpace):
    """Layers in a chain with shortcuts, global average pooling and a linear classifier.

    Layer ``t`` reads layer ``t - 1``, the first one the image. A convolution is ``relu(norm(conv(x)) + s)``;
    a separable one has a depthwise and a 1x1 convolution before the batch norm. A pooling (3x3, stride 2) is
    ``pool(x) + s``. The shortcut ``s`` with ``skip`` = n is the output of layer ``t - 1 - n``, average-pooled
    to the layer's height and width and, if the widths differ, through a 1x1 convolution and a batch norm.

    Decisions: the three numbers of :class:`Layer` for each layer in order. The text is
    ``conv_3x3:32|sep_conv_5x5:64|max_pool_3x3|conv_3x3:64+1``, with ``+skip`` for a shortcut. A move replaces
    one layer, appends one, or removes the last. A crossover takes each layer from either parent, and the
    length from one of them. :meth:`grow` lists all networks with one more layer, for searches that proceed
    layer by layer. Samples have 1 to 8 layers, each number equally likely.

    Args:
        max_layers: Maximum number of layers; None for no bound.
        max_poolings: Maximum number of poolings; 3 reduce images of 32 pixels to 4.
        max_skip: Maximum number of layers that a shortcut skips.
    """

    name = "epnas"
    summary = "networks that grow a layer at a time: widths, kernels, separable, pooling, shortcuts"
    image_size: ClassVar[int] = 16

    def __init__(self, *, max_layers: int | None = 20, max_poolings: int = 3, max_skip: int = 3) -> None:
        check_positive(max_poolings=max_poolings, max_skip=max_skip)
        if max_layers is not None:
            check_positive(max_layers=max_layers)
        self.max_layers = max_layers
        self.max_poolings = max_poolings
        self.max_skip = max_skip

    # ---- the set ---------------------------------------------------------------------------------

    def problem(self, decisions: tuple[int, ...]) -> str:
        """Why ``decisions`` are not in the space; empty if they are."""
        if not decisions or len(decisions) % 3:
            return f"expected three decisions for each of at least one layer, got {len(decisions)}"
        layers = layers_of(decisions)
        if self.max_layers is not None and len(layers) > self.max_layers:
            return f"expected at most max_layers={self.max_layers}, got {len(layers)}"
        for t, (operation, width, skip) in enumerate(layers):
            if not 0 <= operation < len(OPERATIONS):
                return f"the operation of layer {t} must be in 0..{len(OPERATIONS) - 1}, not {operation}"
            widths = 1 if operation >= len(CONVOLUTIONS) else len(WIDTHS)
            if not 0 <= width < widths:
                return f"the width of layer {t} must be in 0..{widths - 1}, not {width}"
            if not 0 <= skip <= self._longest_skip(t):
                return f"the skip of layer {t} must be in 0..{self._longest_skip(t)}, not {skip}"
        poolings = sum(layer.pools for layer in layers)
        if poolings > self.max_poolings:
            return f"expected at most max_poolings={self.max_poolings}, got {poolings}"
        return ""

    def _longest_skip(self, position: int) -> int:
        """Largest skip of the layer at ``position``: a shortcut may start at the first layer's output."""
        return min(self.max_skip, max(0, position - 1))

    def _choices(self, position: int) -> list[Layer]:
        """Every layer that is allowed at ``position``."""
        skips = range(self._longest_skip(position) + 1)
        return [
            Layer(operation, width, skip)
            for operation in range(len(OPERATIONS))
            for width in range(len(WIDTHS) if operation < len(CONVOLUTIONS) else 1)
            for skip in skips
        ]

    def layers(self, arch: Architecture) -> tuple[Layer, ...]:
        """The layers of ``arch``."""
        return layers_of(self.check(arch))

    # ---- moves -----------------------------------------------------------------------------------

    def grow(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture that appends one layer to ``arch``; none if it has ``max_layers``."""
        decisions = self.check(arch)
        for layer in self._choices(len(decisions) // 3):
            grown = (*decisions, *layer)
            if self.is_valid(grown):
                yield Architecture(self.name, grown)

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture with one layer replaced, one appended, or the last one removed."""
        decisions = self.check(arch)
        layers = layers_of(decisions)
        for t, layer in enumerate(layers):
            for choice in self._choices(t):
                moved = (*decisions[: 3 * t], *choice, *decisions[3 * t + 3 :])
                if choice != layer and self.is_valid(moved):
                    yield Architecture(self.name, moved)
        yield from self.grow(arch)
        if len(layers) > 1:
            yield Architecture(self.name, decisions[:-3])

    def distance(self, a: Architecture, b: Architecture) -> int:
        """Number of layers that differ, plus the difference in length."""
        ours, theirs = self.layers(a), self.layers(b)
        return sum(x != y for x, y in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw the number of layers, 1 to 8 or ``max_layers``, then each layer from those allowed."""
        length = rng.randint(1, min(_SAMPLED_LAYERS, self.max_layers or _SAMPLED_LAYERS))
        for _ in range(_MAX_DRAWS):
            decisions = tuple(itertools.chain(*(rng.choice(self._choices(t)) for t in range(length))))
            if self.is_valid(decisions):
                return Architecture(self.name, decisions)
        raise RuntimeError(f"{self.name}: no valid architecture in {_MAX_DRAWS} draws")

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        """Replace a layer, append one or remove the last; the place is drawn uniformly."""
        decisions = self.check(arch)
        count = len(decisions) // 3
        for _ in range(_MAX_DRAWS):
            place = rng.randrange(count + 2)
            if place > count:
                mutant = decisions[:-3]
            else:
                mutant = (*decisions[: 3 * place], *rng.choice(self._choices(place)))
                mutant += decisions[3 * place + 3 :]
            if mutant != decisions and self.is_valid(mutant):
                return Architecture(self.name, mutant)
        raise RuntimeError(f"{self.name}: {self.format(arch)} has no valid neighbour in {_MAX_DRAWS} draws")

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """The length of one parent; each layer from either parent that is long enough."""
        parents = [self.layers(a), self.layers(b)]
        for _ in range(_MAX_DRAWS):
            longer = parents[rng.getrandbits(1)]
            layers: list[int] = []
            for t, layer in enumerate(longer):
                other = parents[rng.getrandbits(1)]
                layers += other[t] if t < len(other) else layer
            if self.is_valid(tuple(layers)):
                return Architecture(self.name, tuple(layers))
        return a

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """Layers joined by ``|``, such as ``conv_3x3:32|max_pool_3x3|sep_conv_5x5:64+1``."""
        return "|".join(
            OPERATIONS[layer.operation]
            + ("" if layer.pools else f":{WIDTHS[layer.width]}")
            + (f"+{layer.skip}" if layer.skip else "")
            for layer in self.layers(arch)
        )

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` writes; surrounding blanks are ignored."""
        text = text.strip()
        decisions: list[int] = []
        position = 0
        while True:
            operation, position = self._word(text, position, "an operation", OPERATIONS)
            width = skip = 0
            if operation < len(CONVOLUTIONS):
                if text[position : position + 1] != ":":
                    raise self._parse_error(text, position, min(1, len(text) - position), "':' and a width")
                width, position = self._word(text, position + 1, "a width", tuple(map(str, WIDTHS)))
            if text[position : position + 1] == "+":
                longest = self._longest_skip(len(decisions) // 3)
                if not longest:
                    expected = "'|' and a layer: no shortcut leads here"
                    raise self._parse_error(text, position, 1, expected)
                allowed = tuple(map(str, range(1, longest + 1)))
                skip, position = self._word(text, position + 1, "a number of layers", allowed)
                skip += 1
            decisions += (operation, width, skip)
            if position == len(text):
                break
            if text[position] != "|":
                raise self._parse_error(text, position, 1, "'|' and a layer, or the end of the text")
            position += 1
        problem = self.problem(tuple(decisions))
        if problem:
            raise self._parse_error(text, 0, len(text), f"another network, for {problem}")
        return Architecture(self.name, tuple(decisions))

    def _word(self, text: str, start: int, what: str, allowed: tuple[str, ...]) -> tuple[int, int]:
        """The position in ``allowed`` of the word at ``start``, and where the word ends."""
        match = _WORD.match(text, start)
        assert match is not None  # the pattern may be empty
        if match.group() not in allowed:
            expected = f"{what} out of {', '.join(allowed)}"
            raise self._parse_error(text, start, len(match.group()), expected, allowed)
        return allowed.index(match.group()), match.end()

    def encode(self, arch: Architecture) -> list[float]:
        """For each layer its operation one-hot, its width in channels (0 for a pooling) and its skip."""
        code: list[float] = []
        for layer in self.layers(arch):
            code += [float(layer.operation == operation) for operation in range(len(OPERATIONS))]
            code += [0.0 if layer.pools else float(WIDTHS[layer.width]), float(layer.skip)]
        return code

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The whole network: node 0 is the image, node ``t + 1`` the output of layer ``t``."""
        edges = []
        for t, layer in enumerate(self.layers(arch)):
            edges.append(Edge(t, t + 1, OPERATIONS[layer.operation]))
            if layer.skip:
                edges.append(Edge(t - layer.skip, t + 1, "skip_connect"))
        return tuple(edges)

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: convolutions without bias, two per channel of each batch norm, the classifier."""
        check_positive(num_classes=num_classes, in_channels=in_channels)
        total, width = 0, in_channels
        for plan in plans_of(self.layers(arch), in_channels):
            total += plan.weights + 2 * plan.norms
            width = plan.width
        return total + (width + 1) * num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image."""
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        total, width, side = 0, in_channels, image_size
        for plan in plans_of(self.layers(arch), in_channels):
            side = -(-side // 2) if plan.layer.pools else side
            total += plan.weights * side**2
            width = plan.width
        return total + width * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; there is nothing to prune."""
        from pynas.spaces.epnas.network import EPNASNetwork

        check_positive(num_classes=num_classes, in_channels=in_channels)
        return EPNASNetwork(list(plans_of(self.layers(arch), in_channels)), num_classes)
