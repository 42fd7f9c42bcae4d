"""Squared norms of a convolution's per-sample gradients, without the gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pynas.ops._checks import Pair, detached
from pynas.ops._conv2d import Geometry, check_conv2d, conv2d_flops, conv2d_group_gradients, geometry_of
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype

_NAME = "conv2d_grad_norms"


def conv2d_grad_norms(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    group_size: int = 1,
    bias: bool = False,
) -> Tensor:
    """||g_b||^2 of a conv2d's weight gradient for each sample group b, g_b as in `conv2d_grad_moments`.

    Not differentiable: the result carries no autograd graph.

    Args:
        grad_output: [B, O, Ho, Wo] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, C, H, W] the layer's input, of the same dtype and device.
        kernel_size: height and width of the kernel, an int or two, as the next three.
        stride: step between output positions.
        padding: zeros around the input on each side.
        dilation: step between kernel taps.
        groups: channel groups of the convolution.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: count the bias gradient's entries too.

    Returns:
        Squared norms [G] with G = B / group_size, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, geometry, groups or group_size do not fit.
        TypeError: an input is not of a floating dtype, or the dtypes differ.
    """
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    grad_output, input = detached(_NAME, grad_output=grad_output, input=input)
    result: Tensor = torch.ops.pynas.conv2d_grad_norms.default(
        grad_output, input, *geometry, group_size, bias
    )
    return result


def conv2d_grad_norms_reference(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    group_size: int = 1,
    bias: bool = False,
) -> Tensor:
    """The same from explicit gradients."""
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    check_conv2d(_NAME, grad_output, input, geometry, group_size)
    return _reference(grad_output, input, geometry, group_size, bias)


def _reference(grad_output: Tensor, input: Tensor, geometry: Geometry, group_size: int, bias: bool) -> Tensor:
    weight, bias_gradients = conv2d_group_gradients(grad_output, input, geometry, group_size)
    g = weight.flatten(1)
    if bias:
        g = torch.cat([g, bias_gradients], 1)
    return g.square().sum(1)


def _fake(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    group_size: int,
    bias: bool,
) -> Tensor:
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    count, _ = check_conv2d(_NAME, grad_output, input, geometry, group_size)
    return grad_output.new_empty((count,), dtype=accumulate_dtype(grad_output.dtype))


register_fake("conv2d_grad_norms", _fake)
register_flop_formula(torch.ops.pynas.conv2d_grad_norms)(conv2d_flops)
