"""What the conv2d gradient operators share: geometry, what fits it, and the explicit per-group gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pynas.ops._checks import Pair, alike, check_fit, pair
from pynas.ops._moments import accumulate_dtype, sum_groups


class Geometry(NamedTuple):
    """What decides which input of a convolution meets which output position; pairs are (height, width)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def geometry_of(
    op: str, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Geometry:
    """The geometry in pairs."""
    return Geometry(
        pair(op, "kernel_size", kernel_size),
        pair(op, "stride", stride),
        pair(op, "padding", padding),
        pair(op, "dilation", dilation),
        groups,
    )


def check_conv2d(
    op: str, grad_output: Tensor, input: Tensor, geometry: Geometry, group_size: int
) -> tuple[int, int]:
    """Refuses what has no result; returns the numbers of sample groups and of input channels to a group."""
    kernel, stride, padding, dilation, groups = geometry
    numbers = min(*kernel, *stride, *dilation, groups, group_size) >= 1 and min(padding) >= 0
    fits = (
        numbers
        and alike(grad_output, input)
        and grad_output.dim() == input.dim() == 4
        and input.shape[0] == grad_output.shape[0]
        and input.shape[0] % group_size == 0
        and input.shape[1] % groups == 0
        and grad_output.shape[1] % groups == 0
        and all(
            max(0, (size + 2 * p - d * (k - 1) - 1) // s + 1) == out
            for size, out, k, s, p, d in zip(
                input.shape[2:], grad_output.shape[2:], kernel, stride, padding, dilation, strict=True
            )
        )
    )
    expected = (
        f"grad_output [B, O, Ho, Wo] and input [B, C, H, W] of a convolution of {geometry} and of batches of "
        f"{group_size}"
    )
    check_fit(op, fits, expected, grad_output=grad_output, input=input)
    return input.shape[0] // group_size, input.shape[1] // groups


def conv2d_group_gradients(
    grad_output: Tensor, input: Tensor, geometry: Geometry, group_size: int
) -> tuple[Tensor, Tensor]:
    """The gradients themselves, [G, O, C/groups, kh, kw] and [G, O]: clear, and as large as they look.

    g[b, o, c, i, j] = sum_{y, x} grad_output[b, o, y, x] padded[b, c, y s + i d, x s + j d] for stride s and
    dilation d.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw), groups = geometry
    dtype = accumulate_dtype(grad_output.dtype)
    batch, out_channels, height, width = grad_output.shape
    delta = grad_output.detach().to(dtype)
    padded = functional.pad(input.detach().to(dtype), (pw, pw, ph, ph))
    delta_groups = delta.reshape(batch, groups, out_channels // groups, height, width)
    taps = []
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * (height - 1) + 1, sh) if height else slice(0, 0)
            columns = slice(j * dw, j * dw + sw * (width - 1) + 1, sw) if width else slice(0, 0)
            patch = padded[:, :, rows, columns].reshape(
                batch, groups, input.shape[1] // groups, height, width
            )
            taps.append(torch.einsum("bgohw,bgchw->bgoc", delta_groups, patch))
    weight = torch.stack(taps, -1).reshape(batch, out_channels, input.shape[1] // groups, kh, kw)
    return sum_groups(weight, group_size), sum_groups(delta.sum((2, 3)), group_size)


def conv2d_flops(
    grad_output_shape: torch.Size,
    input_shape: torch.Size,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    *args: Any,
    **kwargs: Any,
) -> int:
    """Operations (multiply and add counted apart) of one weight gradient of the batch; called by torch."""
    batch, out_channels, height, width = grad_output_shape
    per_position = input_shape[1] // groups * kernel_size[0] * kernel_size[1]
    return 2 * batch * out_channels * height * width * per_position
