"""The layers of the space ``epnas``: the choices of a layer, and its shapes in a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

CONVOLUTIONS: Final = ("conv_1x1", "conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5")
POOLINGS: Final = ("max_pool_3x3", "avg_pool_3x3")
OPERATIONS: Final = CONVOLUTIONS + POOLINGS
WIDTHS: Final = (16, 32, 64, 128)


class Layer(NamedTuple):
    """One layer: its operation, its width and where its shortcut starts.

    Attributes:
        operation: Position in :data:`OPERATIONS`.
        width: Position in :data:`WIDTHS`; 0 for a pooling, which keeps the width of its input.
        skip: Number of layers that the shortcut skips; 0 for no shortcut.
    """

    operation: int
    width: int
    skip: int

    @property
    def pools(self) -> bool:
        """Whether it halves height and width."""
        return self.operation >= len(CONVOLUTIONS)

    @property
    def is_separable(self) -> bool:
        """Whether it is a depthwise and a pointwise convolution."""
        return CONVOLUTIONS[self.operation].startswith("sep")

    @property
    def kernel(self) -> int:
        """Kernel size."""
        return int(OPERATIONS[self.operation][-1])


class Plan(NamedTuple):
    """A layer with its shapes in a network.

    Attributes:
        layer: The layer.
        before: Input channels.
        width: Output channels.
        shortcut: Input channels of its shortcut; 0 without one.
        halvings: How often the shortcut halves height and width.
    """

    layer: Layer
    before: int
    width: int
    shortcut: int
    halvings: int

    @property
    def is_projected(self) -> bool:
        """Whether the shortcut has a convolution."""
        return self.shortcut not in (0, self.width)

    @property
    def weights(self) -> int:
        """Weights of its convolutions, all of which run at the resolution of its output."""
        projection = self.shortcut * self.width if self.is_projected else 0
        if self.layer.pools:
            return projection
        area = self.layer.kernel**2
        if self.layer.is_separable:
            return self.before * (area + self.width) + projection
        return self.before * self.width * area + projection

    @property
    def norms(self) -> int:
        """Channels of its batch norms."""
        return self.width * (self.is_projected + (not self.layer.pools))


def layers_of(decisions: Sequence[int]) -> tuple[Layer, ...]:
    """The layers of decisions, three for each."""
    return tuple([Layer(*decisions[i : i + 3]) for i in range(0, len(decisions), 3)])


def plans_of(layers: Sequence[Layer], in_channels: int) -> Iterator[Plan]:
    """Each layer with the channels around it."""
    widths, depths = [in_channels], [0]  # of the image and each layer's output; depth: number of halvings
    for t, layer in enumerate(layers):
        width = widths[-1] if layer.pools else WIDTHS[layer.width]
        depth = depths[-1] + layer.pools
        source = t - layer.skip
        shortcut = widths[source] if layer.skip else 0
        yield Plan(layer, widths[-1], width, shortcut, depth - depths[source] if layer.skip else 0)
        widths.append(width)
        depths.append(depth)
