"""Inner products of a linear layer's per-sample gradients, without the gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pynas.ops._checks import detached
from pynas.ops._fakes import register_fake
from pynas.ops._linear import check_linear, linear_flops, linear_group_gradients
from pynas.ops._moments import accumulate_dtype

_NAME = "linear_grad_gram"


def linear_grad_gram(
    grad_output: Tensor, input: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """<g_b, g_c> of a linear layer's gradients for all pairs of groups, g_b as in `linear_grad_moments`.

    Not differentiable: the result carries no autograd graph.

    Args:
        grad_output: [B, ..., O] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, ..., I] the layer's input, of the same dtype and device.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: count the bias gradient's entries too.

    Returns:
        Inner products [G, G] with G = B / group_size, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes or group_size do not fit.
        TypeError: an input is not of a floating dtype, or the dtypes differ.
    """
    result: Tensor = torch.ops.pynas.linear_grad_gram.default(
        *detached(_NAME, grad_output=grad_output, input=input), group_size, bias
    )
    return result


def linear_grad_gram_reference(
    grad_output: Tensor, input: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """The same from explicit gradients."""
    check_linear(_NAME, grad_output, input, group_size)
    weight, bias_gradients = linear_group_gradients(grad_output, input, group_size)
    g = weight.flatten(1)
    if bias:
        g = torch.cat([g, bias_gradients], 1)
    return g @ g.T


def _fake(grad_output: Tensor, input: Tensor, group_size: int, bias: bool) -> Tensor:
    count = check_linear(_NAME, grad_output, input, group_size)
    return grad_output.new_empty((count, count), dtype=accumulate_dtype(grad_output.dtype))


register_fake("linear_grad_gram", _fake)
register_flop_formula(torch.ops.pynas.linear_grad_gram)(linear_flops)
