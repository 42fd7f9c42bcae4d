"""Average pooling of channels_last images on the CPU."""

from __future__ import annotations

from collections.abc import Sized
from typing import cast

import torch
from torch import Tensor

from pynas.ops._checks import Pair, pair
from pynas.ops._fakes import register_fake


def supports_avg_pool2d(input: Tensor) -> bool:
    """Whether the kernel reads ``input`` in place: channels_last on the CPU, float32 or bfloat16."""
    return (
        input.device.type == "cpu"
        and input.dim() == 4
        and input.dtype in (torch.float32, torch.bfloat16)
        and input.is_contiguous(memory_format=torch.channels_last)
    )


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """y[n,c,i,j] = mean of x[n,c,h,w] over window (i, j), as torch.nn.functional.avg_pool2d.

    A separable sum: kernel rows + kernel columns loads an element instead of their product. Not
    differentiable by autograd: :func:`avg_pool2d_backward` is its gradient.

    Args:
        input: [N, C, H, W], float32 or bfloat16, on the CPU; channels_last is read in place.
        kernel_size: height and width of the window: an int, or a sequence of one or two, as the next two.
        stride: step between windows; the window's size by default, or where it is an empty sequence.
        padding: zeros around the image, at most half a window.
        count_include_pad: whether the divisor counts the padding.

    Returns:
        [N, C, Ho, Wo] in channels_last.

    Raises:
        ValueError: shapes or geometry do not fit.
        TypeError: another dtype, or sizes that are not whole.
    """
    window = _window("avg_pool2d", kernel_size, stride, padding)
    y: Tensor = torch.ops.pynas.avg_pool2d.default(input.detach(), *window, count_include_pad)
    return y


def avg_pool2d_backward(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """dL/dx from dL/dy; of ``input`` only the shape is used."""
    window = _window("avg_pool2d_backward", kernel_size, stride, padding)
    gradient: Tensor = torch.ops.pynas.avg_pool2d_backward.default(
        grad_output.detach(), input.detach(), *window, count_include_pad
    )
    return gradient


def avg_pool2d_reference(
    input: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """PyTorch's own, differentiable."""
    kernel, steps, zeros = _window("avg_pool2d_reference", kernel_size, stride, padding)
    return torch.nn.functional.avg_pool2d(input, kernel, steps, zeros, count_include_pad=count_include_pad)


def _window(
    op: str, kernel_size: Pair, stride: Pair | None, padding: Pair
) -> tuple[list[int], list[int], list[int]]:
    """Size, step and padding of the windows, two numbers each."""
    given = stride is not None and not (isinstance(stride, Sized) and len(stride) == 0)
    steps = cast("Pair", stride) if given else kernel_size
    return (
        list(pair(op, "kernel_size", kernel_size)),
        list(pair(op, "stride", steps)),
        list(pair(op, "padding", padding)),
    )


def _fake(
    input: Tensor, kernel_size: list[int], stride: list[int], padding: list[int], count_include_pad: bool
) -> Tensor:
    for name, values, least in (
        ("kernel_size", kernel_size, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
    ):
        if len(values) != 2 or min(values) < least:
            raise ValueError(f"avg_pool2d: {name}: expected two integers from {least}, got {values}")
    sizes = [
        (s + 2 * p - k) // d + 1
        for s, k, d, p in zip(input.shape[2:], kernel_size, stride, padding, strict=True)
    ]
    return input.new_empty(*input.shape[:2], *sizes).to(memory_format=torch.channels_last)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    count_include_pad: bool,
) -> Tensor:
    return grad_output.new_empty(input.shape).to(memory_format=torch.channels_last)


register_fake("avg_pool2d", _fake)
register_fake("avg_pool2d_backward", _fake_backward)
