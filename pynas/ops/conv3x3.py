"""3x3 convolution with stride 1 and padding 1 on the CPU, by Winograd's minimal filtering."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas.ops._fakes import register_fake
from pynas.ops.tensors import detached, new_image

DTYPES = (torch.float32, torch.bfloat16)


def supports_conv3x3(input: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these and is faster than oneDNN's direct convolution.

    CPU tensors of one dtype, float32 or bfloat16; ``input`` in channels_last. Measured on Zen 4 with 2
    threads: below 16 channels vectors are not full; 4x4 tiles must be mostly image, and so many that
    transforming the weights pays, which beyond 256 x 256 channels fit no cache.
    """
    if input.device.type != "cpu" or input.dtype not in DTYPES or weight.dtype != input.dtype:
        return False
    if input.dim() != 4 or weight.dim() != 4 or weight.shape[2:] != (3, 3):
        return False
    batch, channels, height, width = input.shape
    tiles = -(-height // 4) * -(-width // 4)
    return (
        weight.shape[1] == channels >= 16
        and weight.shape[0] >= 16
        and channels * weight.shape[0] <= 256 * 256
        and batch * tiles >= 16
        and 6 * tiles <= height * width
        and input.is_contiguous(memory_format=torch.channels_last)
    )


def conv3x3(input: Tensor, weight: Tensor, relu: bool = False) -> Tensor:
    """Convolve: y_nohw = sum_cij w_ocij r(x_n,c,h+i-1,w+j-1), r identity or ReLU, zeros around the image.

    F(4x4, 3x3): 2.25 multiplications an output pixel and channel pair instead of 9, in float32 whatever the
    storage, on the points 0, +-1/sqrt 2, +-sqrt 2 and infinity. The error against float64 is 4e-7 to 9e-7 of
    the result's norm in float32 (a direct sum has 2e-7 to 3e-7), and 1.7e-3, the rounding of the result, in
    bfloat16; that of the weight's gradient is 1e-6. One NaN or infinity spoils the 4x4 tiles that see it.
    Differentiable once; the gradient of ``weight`` is computed in float32. The same bits for the same number
    of threads.
    Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.

    Args:
        input: [N, C, H, W] on the CPU, float32 or bfloat16; channels_last is fastest.
        weight: [O, C, 3, 3] of the same dtype, any strides.
        relu: Convolve relu(input) instead.

    Returns:
        [N, O, H, W] of the dtype of ``input``, channels_last.

    Raises:
        ValueError: Shapes do not fit.
        TypeError: Another dtype, or two.
    """
    y: Tensor = torch.ops.pynas.conv3x3.default(input, weight, relu)
    return y


def conv3x3_backward_input(
    grad_output: Tensor,
    weight: Tensor,
    input: Tensor | None = None,
    relu: bool = False,
    addend: Tensor | None = None,
) -> Tensor:
    """dL/dx_nchw = [x > 0] sum_oij w_ocij g_n,o,h-i+1,w-j+1 + addend, g = dL/dy; [x > 0] with ``relu`` alone.

    Args:
        grad_output: [N, O, H, W].
        weight: [O, C, 3, 3].
        input: [N, C, H, W] as :func:`conv3x3` was given it; read with ``relu`` alone.
        relu: As in :func:`conv3x3`.
        addend: [N, C, H, W]: other gradients of the same tensor.

    Returns:
        [N, C, H, W] of the dtype of ``grad_output``, channels_last.
    """
    gradient: Tensor = torch.ops.pynas.conv3x3_backward_input.default(
        grad_output.detach(), weight.detach(), detached(input), relu, detached(addend)
    )
    return gradient


def conv3x3_backward_weight(
    grad_output: Tensor, input: Tensor, relu: bool = False, groups: int = 1
) -> Tensor:
    """dL/dw_kocij = sum_{n in group k} sum_hw g_nohw r(x_n,c,h+i-1,w+j-1), g = dL/dy.

    Args:
        grad_output: [N, O, H, W].
        input: [N, C, H, W] as :func:`conv3x3` was given it.
        relu: As in :func:`conv3x3`.
        groups: So many equal runs of consecutive samples, each summed by itself; divides N.

    Returns:
        [groups, O, C, 3, 3], float32 in any case; with ``groups`` > 1 in memory as [groups, 3, 3, C, O].
    """
    gradient: Tensor = torch.ops.pynas.conv3x3_backward_weight.default(
        grad_output.detach(), input.detach(), relu, groups
    )
    return gradient


def conv3x3_reference(input: Tensor, weight: Tensor, relu: bool = False) -> Tensor:
    """The same by PyTorch's own convolution, in any dtype."""
    return F.conv2d(F.relu(input) if relu else input, weight, padding=1)


def _fake(input: Tensor, weight: Tensor, relu: bool) -> Tensor:
    return new_image(input, weight.shape[0])


def _fake_backward_input(
    grad_output: Tensor, weight: Tensor, input: Tensor | None, relu: bool, addend: Tensor | None = None
) -> Tensor:
    return new_image(grad_output, weight.shape[1])


def _fake_backward_weight(grad_output: Tensor, input: Tensor, relu: bool, groups: int) -> Tensor:
    outputs, channels = grad_output.shape[1], input.shape[1]
    if groups == 1:
        return input.new_empty((1, outputs, channels, 3, 3), dtype=torch.float32)
    packed = input.new_empty((groups, 3, 3, channels, outputs), dtype=torch.float32)
    return packed.permute(0, 4, 3, 1, 2)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    input, weight, ctx.relu = inputs
    ctx.save_for_backward(input, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    input, weight = ctx.saved_tensors
    ops = torch.ops.pynas
    grad_input = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_input = ops.conv3x3_backward_input(grad, weight, input if ctx.relu else None, ctx.relu)
    if ctx.needs_input_grad[1]:
        grad_weight = ops.conv3x3_backward_weight(grad, input, ctx.relu, 1)[0].to(weight.dtype)
    return grad_input, grad_weight, None


register_fake("conv3x3", _fake)
register_fake("conv3x3_backward_input", _fake_backward_input)
register_fake("conv3x3_backward_weight", _fake_backward_weight)
torch.library.register_autograd("pynas::conv3x3", _backward, setup_context=_setup_context)
