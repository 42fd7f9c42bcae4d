"""1x1 convolution on the CPU with the ReLU before it: what a probing pass of a cell needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas.ops._fakes import register_fake
from pynas.ops.tensors import detached, new_image


def conv1x1(input: Tensor, weight: Tensor, relu: bool = False) -> Tensor:
    """Convolve: y_nohw = sum_c w_oc r(x_nchw), r the identity or ReLU, in float32 whatever the storage.

    Not differentiable by autograd: :func:`conv1x1_backward_input` and :func:`conv1x1_backward_weight` are its
    gradients.

    Args:
        input: [N, C, H, W] in channels_last, float32 or bfloat16, on the CPU.
        weight: [O, C, 1, 1] of the same dtype, any strides.
        relu: Convolve relu(input) instead.

    Returns:
        [N, O, H, W] like ``input``.

    Raises:
        ValueError: Shapes or layout do not fit.
        TypeError: Another dtype.
    """
    y: Tensor = torch.ops.pynas.conv1x1.default(input.detach(), weight.detach(), relu)
    return y


def conv1x1_backward_input(
    grad_output: Tensor,
    weight: Tensor,
    input: Tensor | None = None,
    relu: bool = False,
    addend: Tensor | None = None,
) -> Tensor:
    """dL/dx_nchw = [x > 0] sum_o w_oc g_nohw + addend, g = dL/dy; the first factor with ``relu`` alone.

    Args:
        grad_output: [N, O, H, W].
        weight: [O, C, 1, 1].
        input: [N, C, H, W] as :func:`conv1x1` was given it; read with ``relu`` alone.
        relu: As in :func:`conv1x1`.
        addend: [N, C, H, W]: other gradients of the same tensor.
    """
    gradient: Tensor = torch.ops.pynas.conv1x1_backward_input.default(
        grad_output.detach(), weight.detach(), detached(input), relu, detached(addend)
    )
    return gradient


def conv1x1_backward_weight(grad_output: Tensor, input: Tensor, relu: bool = False) -> Tensor:
    """dL/dw_oc = sum_nhw g_nohw r(x_nchw), g = dL/dy: [O, C, 1, 1], float32 in any case."""
    gradient: Tensor = torch.ops.pynas.conv1x1_backward_weight.default(
        grad_output.detach(), input.detach(), relu
    )
    return gradient


def conv1x1_reference(input: Tensor, weight: Tensor, relu: bool = False) -> Tensor:
    """The same by PyTorch's own convolution, in any dtype, differentiable."""
    return F.conv2d(F.relu(input) if relu else input, weight)


def _fake(input: Tensor, weight: Tensor, relu: bool) -> Tensor:
    return new_image(input, weight.shape[0])


def _fake_backward_input(
    grad_output: Tensor, weight: Tensor, input: Tensor | None, relu: bool, addend: Tensor | None
) -> Tensor:
    return new_image(grad_output, weight.shape[1])


def _fake_backward_weight(grad_output: Tensor, input: Tensor, relu: bool) -> Tensor:
    return input.new_empty((grad_output.shape[1], input.shape[1], 1, 1), dtype=torch.float32)


register_fake("conv1x1", _fake)
register_fake("conv1x1_backward_input", _fake_backward_input)
register_fake("conv1x1_backward_weight", _fake_backward_weight)
