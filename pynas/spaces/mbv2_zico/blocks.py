"""The parts of networks in the Zen-NAS/ZiCo space, their parameters and multiply-adds. No torch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

EXPANSIONS: Final = (1, 2, 4, 6)
KERNELS: Final = (3, 5, 7)
TYPES: Final = tuple(f"E{expansion}K{kernel}" for kernel in KERNELS for expansion in EXPANSIONS)

RATIOS: Final = (2.5, 2, 1.5, 1.25, 1, 1 / 1.25, 1 / 1.5, 1 / 2, 1 / 2.5)
DEPTH_CHANGES: Final = (-2, -1, 0, 1, 2)
PUBLISHED_WEIGHTS: Final = tuple(min(len(TYPES), len(TYPES) + 1 - kind) for kind in range(len(TYPES)))
"""How often each type is among the choices of the published search, of 89 in all.

Its list of blocks grows by one type at a time, and every state of it is kept. A state that was kept still
gets the next type, since that is appended before the list is copied: so the first two types are in all twelve
states, the third in eleven, and the last one in two.
"""
SPLIT_FROM: Final = 6
"""Super-blocks of at least so many sub-layers are split in two; the first gets half of this number."""

_MAX_WIDTH: Final = 65_536
A_WIDTH: Final = f"a multiple of 8 in 8..{_MAX_WIDTH}"

# Squeeze-and-excitation: inner channels per outer channel.
_SQUEEZE: Final = 0.25


class Block(NamedTuple):
    """A super-block: ``layers`` pairs of inverted residuals, to ``bottleneck`` and to ``width`` channels.

    Attributes:
        kind: Position of its expansion and kernel size in :data:`TYPES`.
        width: Output channels, a multiple of 8.
        stride: Stride of its first depthwise convolution, 1 or 2.
        bottleneck: Channels between the two inverted residuals, a multiple of 8.
        layers: Number of sub-layers, 1 to 5.
    """

    kind: int
    width: int
    stride: int
    bottleneck: int
    layers: int

    @property
    def expansion(self) -> int:
        """Channels of a depthwise convolution per output channel of its inverted residual."""
        return EXPANSIONS[self.kind % len(EXPANSIONS)]

    @property
    def kernel(self) -> int:
        """Kernel size of the depthwise convolutions."""
        return KERNELS[self.kind // len(EXPANSIONS)]

    def units(self, before: int) -> Iterator[Unit]:
        """Its inverted residuals in order, given ``before`` input channels."""
        stride, is_first = self.stride, True
        for _ in range(self.layers):
            for width in (self.bottleneck, self.width):
                middle = round8(width * self.expansion)
                yield Unit(before, middle, width, self.kernel, stride, is_first or before != width)
                before, stride, is_first = width, 1, False


class Unit(NamedTuple):
    """One inverted residual (1x1 to ``middle``, depthwise, 1x1 to ``width``) and its residual link."""

    before: int
    middle: int
    width: int
    kernel: int
    stride: int
    projected: bool  # the link is a convolution, not the identity

    @property
    def squeezed(self) -> int:
        """Channels inside squeeze-and-excitation."""
        return max(1, round(self.middle * _SQUEEZE))


def round8(channels: float) -> int:
    """The nearest multiple of 8, at least 8; ties go to the even multiple."""
    return max(8, round(channels / 8) * 8)


def is_width(channels: int) -> bool:
    """Whether the space allows this width: see :data:`A_WIDTH`."""
    return 8 <= channels <= _MAX_WIDTH and channels % 8 == 0


def blocks_of(decisions: Sequence[int]) -> tuple[Block, ...]:
    """The super-blocks in ``decisions``, which start with two widths."""
    return tuple([Block(*decisions[i : i + 5]) for i in range(2, len(decisions), 5)])


@lru_cache(maxsize=4096)
def widths(width: int) -> tuple[int, ...]:
    """The distinct widths that nine ratios make of ``width``, ascending."""
    return tuple(sorted({round8(width * ratio) for ratio in RATIOS}))


def depths(layers: int) -> tuple[int, ...]:
    """Up to two sub-layers more or fewer, at least one, ascending."""
    return tuple(layers + change for change in DEPTH_CHANGES if layers + change > 0)


def replacements(block: Block) -> Iterator[Block]:
    """Every choice of a replacement, including the block itself, before splitting."""
    choices = itertools.product(
        range(len(TYPES)), widths(block.width), widths(block.bottleneck), depths(block.layers)
    )
    for kind, width, bottleneck, layers in choices:
        yield Block(kind, width, block.stride, bottleneck, layers)


def draw(block: Block, rng: random.Random) -> Block:
    """One of :func:`replacements`, drawn uniformly."""
    return Block(
        rng.randrange(len(TYPES)),
        rng.choice(widths(block.width)),
        block.stride,
        rng.choice(widths(block.bottleneck)),
        rng.choice(depths(block.layers)),
    )


def draw_published(block: Block, rng: random.Random) -> Block:
    """A replacement as the published search draws it: its type by :data:`PUBLISHED_WEIGHTS`, else uniform."""
    (kind,) = rng.choices(range(len(TYPES)), PUBLISHED_WEIGHTS)
    return draw(block, rng)._replace(kind=kind)


def split(block: Block) -> tuple[Block, ...]:
    """Split a super-block that has too many sub-layers in two."""
    if block.layers < SPLIT_FROM:
        return (block,)
    half = SPLIT_FROM // 2
    return block._replace(layers=half), block._replace(stride=1, layers=block.layers - half)


def _units(decisions: Sequence[int]) -> Iterator[Unit]:
    before = decisions[0]
    for block in blocks_of(decisions):
        yield from block.units(before)
        before = block.width


def params(
    decisions: Sequence[int], num_classes: int, in_channels: int, residual: bool, squeeze_excite: bool
) -> int:
    """Number of parameters."""
    stem, last = decisions[:2]
    total = 9 * in_channels * stem + 2 * stem
    for unit in _units(decisions):
        total += unit.middle * (unit.before + unit.kernel**2 + unit.width)
        total += 2 * (unit.middle + unit.middle + unit.width)
        if residual and unit.projected:
            total += (unit.before + 1) * unit.width + 2 * unit.width
        if squeeze_excite:
            total += 2 * unit.middle * unit.squeezed + 2 * (unit.squeezed + unit.middle)
    return total + decisions[-4] * last + 2 * last + (last + 1) * num_classes


def macs(
    decisions: Sequence[int],
    num_classes: int,
    image_size: int,
    in_channels: int,
    residual: bool,
    squeeze_excite: bool,
) -> int:
    """Multiply-adds of the convolutions and the classifier."""
    stem, last = decisions[:2]
    side = -(-image_size // 2)
    total = 9 * in_channels * stem * side**2
    for unit in _units(decisions):
        total += unit.before * unit.middle * side**2
        side = -(-side // unit.stride)
        total += unit.middle * (unit.kernel**2 + unit.width) * side**2
        if residual and unit.projected:
            total += unit.before * unit.width * side**2
        if squeeze_excite:
            total += 2 * unit.middle * unit.squeezed
    return total + decisions[-4] * last * side**2 + last * num_classes


def published_flops(decisions: Sequence[int], num_classes: int = 1000, image_size: int = 224) -> float:
    """FLOPs as the authors count them; see :meth:`MBV2ZiCo.published_flops`."""
    stem, last = decisions[:2]
    # They count the input area of a convolution over its squared stride, in whole multiply-adds.
    total: float = 27 * stem * image_size**2 // 4
    side = image_size // 2
    total += stem * side**2
    for unit in _units(decisions):
        total += (unit.before + 1) * unit.middle * side**2
        depthwise = unit.middle * unit.kernel**2 * side**2 // unit.stride**2
        side //= unit.stride
        total += depthwise + (unit.middle + unit.middle * unit.width + unit.width) * side**2
        if unit.projected:
            total += (unit.before + 1) * unit.width * (side / unit.stride) ** 2
    return total + (decisions[-4] + 1) * last * side**2 + last * num_classes
