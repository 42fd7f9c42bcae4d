"""Gradients of a norm layer's scale and shift, group by group: what norms and inner products are made of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pynas.ops._affine import affine_group_gradients, check_affine
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype

_NAME = "affine_grad_rows"
_BLOCK = 1 << 18  # numbers in one block of explicit gradients: bounds memory whatever G and C are


def affine_grad_norms(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """||g_b||^2 of a norm layer's scale gradient for each sample group b, g_b as in `affine_grad_moments`.

    Works through the channels in blocks. Not differentiable: the result carries no autograd graph.

    Args:
        grad_output: [B, C, T] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, C, T] the layer's input, of the same dtype and device.
        mean: [B or 1, G, T or 1] mean that the layer subtracted; G divides C.
        rstd: as `mean`, 1 / sqrt(variance + eps).
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: count the shift's gradient too.

    Returns:
        Squared norms [B / group_size], float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes or group_size do not fit.
        TypeError: an argument is not of a floating dtype, or the dtypes differ.
    """
    tensors = check_affine("affine_grad_norms", grad_output, input, mean, rstd, group_size)
    total = _zeros(input, (input.shape[0] // group_size,))
    for g in _blocks(*tensors, group_size, bias):
        total += g.square().sum((0, 2))
    return total


def affine_grad_norms_reference(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """The same from explicit gradients."""
    return _explicit("affine_grad_norms", grad_output, input, mean, rstd, group_size, bias).square().sum(1)


def affine_grad_gram(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """<g_b, g_c> of a norm layer's scale gradients for all pairs of groups; arguments of `affine_grad_norms`.

    Returns:
        Inner products [G, G] with G = B / group_size, float32 (float64 for float64 inputs).
    """
    tensors = check_affine("affine_grad_gram", grad_output, input, mean, rstd, group_size)
    count = input.shape[0] // group_size
    total = _zeros(input, (count, count))
    for g in _blocks(*tensors, group_size, bias):
        for part in g:
            total.addmm_(part, part.T)
    return total


def affine_grad_gram_reference(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """The same from explicit gradients."""
    g = _explicit("affine_grad_gram", grad_output, input, mean, rstd, group_size, bias)
    return g @ g.T


def _explicit(
    op: str, grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int, bias: bool
) -> Tensor:
    tensors = check_affine(op, grad_output, input, mean, rstd, group_size)
    weight, shift = affine_group_gradients(*tensors, group_size)
    return torch.cat([weight, shift], 1) if bias else weight


def _zeros(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=accumulate_dtype(input.dtype), device=input.device)


def _blocks(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int, bias: bool
) -> Iterator[Tensor]:
    """Gradients [1 or 2, G, channels of a block] of the scale and, with `bias`, the shift, block by block."""
    count, channels = input.shape[0] // group_size, input.shape[1]
    groups = mean.shape[1]
    per_group = channels // groups if groups else 1
    # A block holds whole channel groups, so that its statistics are a slice too.
    width = channels if groups <= 1 else max(1, _BLOCK // max(1, 2 * count) // per_group) * per_group
    if groups == 1:
        width = max(1, _BLOCK // max(1, 2 * count))
    for begin in range(0, channels, max(1, width)):
        end = min(begin + width, channels)
        statistics = (mean, rstd)
        if groups > 1:
            first, last = begin // per_group, end // per_group
            statistics = (mean[:, first:last], rstd[:, first:last])
        rows = _rows(grad_output[:, begin:end], input[:, begin:end], *statistics, group_size)
        yield rows if bias else rows[:1]


def _rows(grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int) -> Tensor:
    rows: Tensor = torch.ops.pynas.affine_grad_rows.default(grad_output, input, mean, rstd, group_size)
    return rows


def _fake(grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int) -> Tensor:
    shape = (2, input.shape[0] // group_size, input.shape[1])
    return input.new_empty(shape, dtype=accumulate_dtype(input.dtype))


register_fake("affine_grad_rows", _fake)
