"""Moments over samples of a linear layer's weight and bias gradients, without the samples' gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pynas.ops._checks import detached
from pynas.ops._fakes import register_fake
from pynas.ops._linear import check_linear, linear_flops, linear_group_gradients
from pynas.ops._moments import MomentSums, accumulate_dtype, count_moments, moment_mask, moments_of, unpack

_NAME = "linear_grad_moments"


def linear_grad_moments(
    grad_output: Tensor,
    input: Tensor,
    *,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
    bias: bool = False,
) -> MomentSums:
    """Sums over sample groups of g, |g|, g^2, sign(g), (g - mean g)^2, g = g_b a linear layer's gradient.

    g_b[o, i] = sum over the group's samples and positions t of grad_output[t, o] input[t, i]

    Nothing of size [B, O, I] is allocated. Not differentiable: the results carry no autograd graph.

    Args:
        grad_output: [B, ..., O] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, ..., I] the layer's input, of the same dtype and device; axes between are positions.
        moments: which sums, names out of `pynas.ops.MOMENTS`.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: also the moments of the bias gradient, g_b[o] = sum_t grad_output[t, o].

    Returns:
        Moments with tensors [O, I] for the weight and [O] for the bias, float32 (float64 for float64 inputs),
        and `count` = B / group_size.

    Raises:
        ValueError: shapes, group_size or moments do not fit.
        TypeError: an input is not of a floating dtype, or the dtypes differ.
    """
    mask = moment_mask(_NAME, moments)
    weight, bias_rows = torch.ops.pynas.linear_grad_moments.default(
        *detached(_NAME, grad_output=grad_output, input=input), mask, group_size, bias
    )
    count = grad_output.shape[0] // group_size
    return MomentSums(unpack(weight, mask, count), unpack(bias_rows, mask, count) if bias else None)


def linear_grad_moments_reference(
    grad_output: Tensor,
    input: Tensor,
    *,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
    bias: bool = False,
) -> MomentSums:
    """The same by the definition: every group's gradient explicitly, then the sums."""
    mask = moment_mask(_NAME, moments)
    check_linear(_NAME, grad_output, input, group_size)
    weight, bias_gradients = linear_group_gradients(grad_output, input, group_size)
    return MomentSums(moments_of(weight, mask), moments_of(bias_gradients, mask) if bias else None)


def _fake(
    grad_output: Tensor, input: Tensor, moments: int, group_size: int, bias: bool
) -> tuple[Tensor, Tensor]:
    check_linear(_NAME, grad_output, input, group_size)
    rows, dtype = count_moments(moments), accumulate_dtype(grad_output.dtype)
    bias_shape = (rows, grad_output.shape[-1]) if bias else (0,)
    return (
        grad_output.new_empty((rows, grad_output.shape[-1], input.shape[-1]), dtype=dtype),
        grad_output.new_empty(bias_shape, dtype=dtype),
    )


register_fake("linear_grad_moments", _fake)
register_flop_formula(torch.ops.pynas.linear_grad_moments)(linear_flops)
