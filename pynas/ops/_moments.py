"""The values that gradient-moment operators return, and the names of the moments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENTS: tuple[str, ...] = ("sum", "abs", "square", "sign", "centered")
"""Names of the moments, in the order of their bits in an operator's mask and of the rows of its result."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over the gradients g_1..g_G of G sample groups, element by element; None where not asked for.

    Attributes:
        count: G, the number of groups summed over.
        sum: sum_b g_b.
        abs: sum_b |g_b|.
        square: sum_b g_b^2.
        sign: sum_b sign(g_b), with sign(0) = 0.
        centered: sum_b (g_b - mean g)^2; divide by `count` for the population variance.
    """

    count: int
    sum: Tensor | None = None
    abs: Tensor | None = None
    square: Tensor | None = None
    sign: Tensor | None = None
    centered: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MomentSums:
    """Moments of a layer's weight gradient, and of its bias gradient where there is one."""

    weight: Moments
    bias: Moments | None = None


def moment_mask(op: str, moments: Iterable[str]) -> int:
    """Bit mask of `moments`: sum 1, abs 2, square 4, sign 8, centered 16."""
    if isinstance(moments, str):
        raise TypeError(
            f"{op}: moments: expected a sequence of names, got the string {moments!r}; pass ({moments!r},)"
        )
    mask = 0
    for name in moments:
        if name not in MOMENTS:
            raise ValueError(f"{op}: moments: expected names out of {', '.join(MOMENTS)}, got {name!r}")
        mask |= 1 << MOMENTS.index(name)
    if mask == 0:
        raise ValueError(f"{op}: moments: expected at least one of {', '.join(MOMENTS)}, got none")
    return mask


_NAMES = tuple(
    tuple(name for bit, name in enumerate(MOMENTS) if mask >> bit & 1) for mask in range(1 << len(MOMENTS))
)


def moment_names(mask: int) -> tuple[str, ...]:
    """Names of the moments in `mask`, in the order of their rows in a result."""
    return _NAMES[mask]


def count_moments(mask: int) -> int:
    """Number of rows in a result that holds the moments of `mask`."""
    return mask.bit_count()


def unpack(rows: Tensor, mask: int, count: int) -> Moments:
    """An operator's result [K, ...] as a value; the tensors are views of it."""
    return Moments(count, **dict(zip(moment_names(mask), rows.unbind(0), strict=True)))


def moments_of(gradients: Tensor, mask: int) -> Moments:
    """The definition: moments of explicit gradients [G, ...] over their first axis."""
    g = gradients
    tensors = {
        "sum": lambda: g.sum(0),
        "abs": lambda: g.abs().sum(0),
        "square": lambda: g.square().sum(0),
        "sign": lambda: g.sign().sum(0),
        "centered": lambda: (g - g.mean(0)).square().sum(0) if len(g) else g.sum(0),
    }
    return Moments(len(g), **{name: tensors[name]() for name in moment_names(mask)})


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of sums and results: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sum_groups(gradients: Tensor, group_size: int) -> Tensor:
    """Per-sample gradients [B, ...] to gradients of groups of consecutive samples [B / group_size, ...]."""
    return gradients.reshape(gradients.shape[0] // group_size, group_size, *gradients.shape[1:]).sum(1)
