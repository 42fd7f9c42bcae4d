"""Where the samples of a tensor are, and how that is found out: never from one size that happens to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """The samples of a tensor are dimension ``dim``, read as [before, B, after].

    ``before = after = 1`` is a dimension of their own. Windows folded into the batch as ``[B * windows,
    ...]`` have their number as ``after``; tokens of ``[T * B, E]`` have theirs as ``before``.
    """

    dim: int
    before: int = 1
    after: int = 1

    @property
    def positions(self) -> int:
        """How many rows of dimension ``dim`` one sample has."""
        return self.before * self.after

    def first(self, x: Tensor) -> Tensor:
        """``x`` with samples in front: [B, ...], or [B, ..., before, after, ...] where they were folded."""
        if self.positions == 1:
            return x if self.dim == 0 else x.movedim(self.dim, 0)
        batch = x.shape[self.dim] // self.positions
        return torch.unflatten(x, self.dim, (self.before, batch, self.after)).movedim(self.dim + 1, 0)

    def stacked(self, x: Tensor) -> Tensor:
        """``x`` with dimension ``dim`` in front, the rows of a sample side by side: [B * positions, ...]."""
        if self.before == 1:
            return x if self.dim == 0 else x.movedim(self.dim, 0)
        batch = x.shape[self.dim] // self.positions
        parts = torch.unflatten(x, self.dim, (self.before, batch, self.after)).movedim(self.dim, self.dim + 1)
        return parts.flatten(self.dim, self.dim + 2).movedim(self.dim, 0)

    def split(self, x: Tensor, start: int, groups: int, size: int) -> Tensor:
        """Groups ``start`` to ``start + groups`` of ``size`` samples, their number in front of ``dim``."""
        batch = x.shape[self.dim] // self.positions
        parts = torch.unflatten(x, self.dim, (self.before, batch, self.after))
        parts = parts.narrow(self.dim + 1, start * size, groups * size)
        parts = torch.unflatten(parts, self.dim + 1, (groups, size)).movedim(self.dim + 1, self.dim)
        return parts.flatten(self.dim + 1, self.dim + 3)


FIRST = Layout(0)
# The sample that small passes change: neither an end nor the middle, which usual orders leave in place.
CHANGED = 1


@dataclass(frozen=True, slots=True)
class Unknown:
    """Samples are in there, nobody knows where; ``why`` ends a sentence about the tensor's shape."""

    why: str


DATA = "has a size that depends on the data"
MIXED = "has rows for which samples depend on each other, or are in another order"
COUPLED = "has rows with something of several samples in them"
ORDER = "has its samples in another order than the batch"
PAIRS = "grows with the batch in several dimensions"

# None: no samples in any dimension of it, although it may depend on them (a mean over the batch).
Where = Layout | Unknown | None


def compared(small: torch.Size, large: torch.Size, sizes: tuple[int, int], moved: Tensor | None) -> Where:
    """Where the samples are, from the shapes of one tensor in passes of two batch sizes.

    Args:
        small: Shape in the pass of ``sizes[0]`` samples.
        large: Shape in that of ``sizes[1]``.
        sizes: Both numbers of samples.
        moved: Which rows of the larger one's dimension changed when sample ``CHANGED`` alone did; None where
            that was not looked at.
    """
    if len(small) != len(large):
        return Unknown("has another number of dimensions for another batch size")
    changed = [d for d in range(len(small)) if small[d] != large[d]]
    if not changed:
        return None
    if len(changed) > 1:
        return Unknown(PAIRS)
    (dim,) = changed
    rows, rest = divmod(large[dim], sizes[1])
    if rest or small[dim] != rows * sizes[0]:
        return Unknown(
            f"has a size of {small[dim]} for a batch of {sizes[0]} and of {large[dim]} for {sizes[1]}"
        )
    if moved is None:
        if rows == 1:
            return Layout(dim)
        return Unknown("folds the samples into another dimension in an order that could not be measured")
    return _order(dim, rows, sizes[1], moved)


def _order(dim: int, rows: int, batch: int, moved: Tensor) -> Where:
    index = torch.arange(rows * batch)
    fits = []
    for after in range(1, rows + 1):
        if rows % after == 0:
            others = index // after % batch != CHANGED
            if not (moved & others).any():
                fits.append(Layout(dim, rows // after, after))
    if not fits:
        return Unknown(MIXED)
    if not moved.any():
        return Unknown("folds the samples into another dimension, and its rows did not change with them")
    if len(fits) > 1:
        return Unknown("folds the samples into another dimension in an order that could not be measured")
    return fits[0]


def together(operator: str, x: Tensor, used: Sequence[Tensor]) -> int:
    """How many of the last dimensions of its input a call takes together, or reads by their places."""
    if operator in ("linear", "matmul", "addmm"):
        return 1
    if operator in ("layer_norm", "rms_norm"):
        return used[0].dim()
    return 0 if operator == "embedding" else x.dim() - 1  # convolutions and norms of channels
