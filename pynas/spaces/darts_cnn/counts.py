"""The skeleton of DARTS networks, their parameters and multiply-adds in closed form. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

OPERATIONS: Final = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

AUXILIARY_WIDTHS: Final = (128, 768)

# Normal and reduction cell; a node is two pairs (position in OPERATIONS, source).
Cells = Sequence[Sequence[tuple[tuple[int, int], tuple[int, int]]]]


@dataclass(frozen=True, slots=True)
class CellShape:
    """One cell: channels of both inputs and of a node, and where height and width are halved."""

    before: int
    previous: int
    channels: int
    reduction: bool
    reduction_previous: bool


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A network except for the operations of its cells."""

    channels: int
    num_cells: int
    imagenet: bool
    auxiliary: bool

    def cells(self) -> Iterator[CellShape]:
        """The cells in order."""
        before = previous = self.channels if self.imagenet else 3 * self.channels
        channels, reduced = self.channels, self.imagenet
        for i in range(self.num_cells):
            reduction = i in (self.num_cells // 3, 2 * self.num_cells // 3)
            channels *= 2 if reduction else 1
            yield CellShape(before, previous, channels, reduction, reduced)
            before, previous, reduced = previous, 4 * channels, reduction

    @property
    def auxiliary_cell(self) -> int:
        """The cell that feeds the auxiliary head."""
        return 2 * self.num_cells // 3

    @property
    def auxiliary_stride(self) -> int:
        """Stride of the head's 5x5 pooling."""
        return 2 if self.imagenet else 3

    def stem(self, in_channels: int) -> list[tuple[int, int]]:
        """Input and output channels of the stem's 3x3 convolutions, which have stride 2 on ImageNet."""
        c = self.channels
        return [(in_channels, c // 2), (c // 2, c), (c, c)] if self.imagenet else [(in_channels, 3 * c)]


def _kernel(operation: int) -> tuple[int, int]:
    """Kernel size and repetitions of a convolution, (0, 0) for other operations."""
    name = OPERATIONS[operation]
    if "conv" not in name:
        return 0, 0
    return int(name[-1]), 2 if name.startswith("sep") else 1


def _operations(cells: Cells, shape: CellShape) -> Iterator[tuple[int, bool]]:
    """(operation, whether it halves the image) of the edges of one cell."""
    for node in cells[shape.reduction]:
        for operation, source in node:
            yield operation, shape.reduction and source < 2


def params(skeleton: Skeleton, cells: Cells, num_classes: int, in_channels: int) -> int:
    """Parameters of the network."""
    total = sum((9 * a + 2) * b for a, b in skeleton.stem(in_channels))
    width = 0
    for i, shape in enumerate(skeleton.cells()):
        c = shape.channels
        total += (shape.before + shape.previous + 4) * c
        for operation, halves in _operations(cells, shape):
            kernel, times = _kernel(operation)
            total += times * (kernel**2 + c + 2) * c
            if OPERATIONS[operation] == "skip_connect" and halves:
                total += (c + 2) * c
        width = 4 * c
        if skeleton.auxiliary and i == skeleton.auxiliary_cell:
            a, b = AUXILIARY_WIDTHS
            # The ImageNet head has no batch norm after its second convolution.
            total += (width + 2) * a + (4 * a + (0 if skeleton.imagenet else 2)) * b + (b + 1) * num_classes
    return total + (width + 1) * num_classes


def macs(skeleton: Skeleton, cells: Cells, num_classes: int, image_size: int, in_channels: int) -> int:
    """Multiply-adds of the network for one image."""
    size, total = image_size, 0
    for a, b in skeleton.stem(in_channels):
        size = _half(size) if skeleton.imagenet else size
        total += 9 * a * b * size**2
    width = 0
    for i, shape in enumerate(skeleton.cells()):
        c = shape.channels
        total += (shape.before + shape.previous) * c * size**2
        size = _half(size) if shape.reduction else size
        for operation, halves in _operations(cells, shape):
            kernel, times = _kernel(operation)
            total += times * (kernel**2 + c) * c * size**2
            if OPERATIONS[operation] == "skip_connect" and halves:
                total += c**2 * size**2
        width = 4 * c
        if skeleton.auxiliary and i == skeleton.auxiliary_cell:
            a, b = AUXILIARY_WIDTHS
            pooled = (size - 5) // skeleton.auxiliary_stride + 1
            total += width * a * pooled**2 + 4 * a * b * (pooled - 1) ** 2 + b * num_classes
    return total + width * num_classes


def _half(size: int) -> int:
    return (size + 1) // 2
