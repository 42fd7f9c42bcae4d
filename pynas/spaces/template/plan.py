"""What a block computes, as plain data: counted without torch here, built as modules in ``network.py``.

A plan is a tuple of operations, one after the other; the identity is the empty plan. Two blocks compute the
same function of the same weights if their plans are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with zero padding of ``padding`` pixels on each side."""

    in_channels: int
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch norm, or a group norm of ``groups`` groups."""

    kind: str
    channels: int
    affine: bool = True

    @property
    def groups(self) -> int:
        """Groups of a group norm: the most, up to 8, that leave each at least 4 channels; else one."""
        return max(g for g in range(1, 9) if self.channels % g == 0 and (g == 1 or self.channels // g >= 4))


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Pool:
    """``max`` or ``average`` over a window; means count only pixels inside of the image."""

    operation: str
    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False


@dataclass(frozen=True, slots=True)
class Sum:
    """``main(x) + shortcut(x)``."""

    main: Plan
    shortcut: Plan


@dataclass(frozen=True, slots=True)
class Join:
    """``x <- cat(x, layer(x))`` for each layer."""

    layers: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class Shuffle:
    """``shuffle(cat(first, main(second)))`` of the halves of the channels if ``other`` is None.

    Else ``shuffle(cat(other(x), main(x)))``. Channels ``c`` and ``C / 2 + c`` end up beside each other.
    """

    main: Plan
    other: Plan | None = None


Operation: TypeAlias = Conv | Norm | Activation | Pool | Sum | Join | Shuffle
Plan: TypeAlias = tuple[Operation, ...]


def branches(operation: Operation) -> tuple[Plan, ...]:
    """The plans inside of an operation."""
    match operation:
        case Sum(main, shortcut):
            return (main, shortcut)
        case Join(layers):
            return layers
        case Shuffle(main, other):
            return (main,) if other is None else (main, other)
    return ()


def after(operation: Operation, size: int) -> int:
    """Side of the image after ``operation``, from ``size`` before it; below 1 if the window does not fit."""
    match operation:
        case Conv():
            reach = operation.dilation * (operation.kernel - 1) + 1
            return (size + 2 * operation.padding - reach) // operation.stride + 1
        case Pool():
            left = size + 2 * operation.padding - operation.kernel
            return (left + (operation.stride - 1 if operation.ceil else 0)) // operation.stride + 1
        case Sum(main, _) | Shuffle(main, _):
            return side(main, size)
    return size


def side(plan: Plan, size: int) -> int:
    """Side of the image after a plan; stops at the first side below 1."""
    for operation in plan:
        if size < 1:
            break
        size = after(operation, size)
    return size


def walk(plan: Plan, size: int) -> Iterator[tuple[Operation, int]]:
    """Every operation, those of branches included, with the side of the image that it reads."""
    for operation in plan:
        yield operation, size
        for branch in branches(operation):
            yield from walk(branch, size)
        size = after(operation, size)


def params(plan: Plan) -> int:
    """Weights and biases."""
    total = 0
    for operation, _ in walk(plan, 1 << 30):
        match operation:
            case Conv(before, channels, kernel, groups=groups, bias=bias):
                total += kernel**2 * channels * (before // groups) + channels * bias
            case Norm(_, channels, affine):
                total += 2 * channels * affine
    return total


def macs(plan: Plan, size: int) -> int:
    """Multiply-adds of the convolutions for one square image with sides of ``size`` pixels."""
    total = 0
    for operation, before in walk(plan, size):
        if isinstance(operation, Conv):
            weights = operation.kernel**2 * operation.channels * (operation.in_channels // operation.groups)
            total += weights * after(operation, before) ** 2
    return total
