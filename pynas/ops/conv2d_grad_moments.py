"""Moments over samples of a convolution's weight and bias gradients, without the samples' gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pynas.ops._checks import Pair, detached
from pynas.ops._conv2d import Geometry, check_conv2d, conv2d_flops, conv2d_group_gradients, geometry_of
from pynas.ops._fakes import register_fake
from pynas.ops._moments import MomentSums, accumulate_dtype, count_moments, moment_mask, moments_of, unpack

_NAME = "conv2d_grad_moments"


def conv2d_grad_moments(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
    bias: bool = False,
) -> MomentSums:
    """Sums over sample groups of g_b, |g_b|, g_b^2, sign(g_b), (g_b - mean g)^2, g_b a conv2d's gradient.

    g_b[o, c, i, j] = sum over the group's samples and positions t of grad_output[t, o] patch[t, c, i, j]

    Nothing of size [B, O, C, kh, kw] is allocated. Not differentiable: the results carry no autograd graph.

    Args:
        grad_output: [B, O, Ho, Wo] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, C, H, W] the layer's input, of the same dtype and device. Any strides.
        kernel_size: height and width of the kernel, an int or two, as the next three.
        stride: step between output positions.
        padding: zeros around the input on each side.
        dilation: step between kernel taps.
        groups: channel groups of the convolution (C for depthwise).
        moments: which sums, names out of `pynas.ops.MOMENTS`.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: also the moments of the bias gradient, g_b[o] = sum_t grad_output[t, o].

    Returns:
        Moments with tensors [O, C / groups, kh, kw] for the weight and [O] for the bias, float32 (float64 for
        float64 inputs), and `count` = B / group_size.

    Raises:
        ValueError: shapes, geometry, groups, group_size or moments do not fit.
        TypeError: an input is not of a floating dtype, or the dtypes differ.
    """
    mask = moment_mask(_NAME, moments)
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    grad_output, input = detached(_NAME, grad_output=grad_output, input=input)
    weight, bias_rows = torch.ops.pynas.conv2d_grad_moments.default(
        grad_output, input, *geometry, mask, group_size, bias
    )
    count = grad_output.shape[0] // group_size
    return MomentSums(unpack(weight, mask, count), unpack(bias_rows, mask, count) if bias else None)


def conv2d_grad_moments_reference(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
    bias: bool = False,
) -> MomentSums:
    """The same by the definition: every group's gradient explicitly, then the sums."""
    mask = moment_mask(_NAME, moments)
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    check_conv2d(_NAME, grad_output, input, geometry, group_size)
    return _reference(grad_output, input, geometry, mask, group_size, bias)


def _reference(
    grad_output: Tensor, input: Tensor, geometry: Geometry, mask: int, group_size: int, bias: bool
) -> MomentSums:
    weight, bias_gradients = conv2d_group_gradients(grad_output, input, geometry, group_size)
    return MomentSums(moments_of(weight, mask), moments_of(bias_gradients, mask) if bias else None)


def _fake(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    moments: int,
    group_size: int,
    bias: bool,
) -> tuple[Tensor, Tensor]:
    geometry = geometry_of(_NAME, kernel_size, stride, padding, dilation, groups)
    _, group_channels = check_conv2d(_NAME, grad_output, input, geometry, group_size)
    rows, out_channels = count_moments(moments), grad_output.shape[1]
    dtype = accumulate_dtype(grad_output.dtype)
    shape = (rows, out_channels, group_channels, *geometry.kernel_size)
    bias_shape = (rows, out_channels) if bias else (0,)
    return grad_output.new_empty(shape, dtype=dtype), grad_output.new_empty(bias_shape, dtype=dtype)


register_fake("conv2d_grad_moments", _fake)
register_flop_formula(torch.ops.pynas.conv2d_grad_moments)(conv2d_flops)
