"""What the conv2d gradient operators share: geometry, its checks, and the explicit per-group gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pynas.ops._checks import Pair, check_batch, check_float, check_group_size, check_like, pair
from pynas.ops._moments import accumulate_dtype, sum_groups


class Geometry(NamedTuple):
    """What decides which input of a convolution meets which output position; pairs are (height, width)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def check_conv2d(
    op: str,
    grad_output: Tensor,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    group_size: int,
) -> Geometry:
    """Validates tensors and geometry against each other and returns the geometry in pairs."""
    geometry = Geometry(
        pair(op, "kernel_size", kernel_size, 1),
        pair(op, "stride", stride, 1),
        pair(op, "padding", padding, 0),
        pair(op, "dilation", dilation, 1),
        groups,
    )
    check_float(op, "grad_output", grad_output)
    check_float(op, "input", input)
    check_like(op, "input", input, "grad_output", grad_output)
    for name, tensor, axes in (
        ("grad_output", grad_output, "[B, O, Ho, Wo]"),
        ("input", input, "[B, C, H, W]"),
    ):
        if tensor.dim() != 4:
            raise ValueError(f"{op}: {name}: expected 4 axes {axes}, got shape {tuple(tensor.shape)}")
    check_batch(op, "input", input, "grad_output", grad_output)
    check_group_size(op, grad_output.shape[0], group_size)
    if groups < 1 or input.shape[1] % groups != 0 or grad_output.shape[1] % groups != 0:
        raise ValueError(
            f"{op}: groups: expected a positive divisor of the {input.shape[1]} input and "
            f"{grad_output.shape[1]} output channels, got {groups}"
        )
    for axis, name in ((0, "height"), (1, "width")):
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1)
        size = input.shape[2 + axis] + 2 * geometry.padding[axis] - reach - 1
        expected = size // geometry.stride[axis] + 1
        if grad_output.shape[2 + axis] != expected:
            raise ValueError(
                f"{op}: grad_output: expected {name} {expected} for an input of {input.shape[2 + axis]} "
                f"with kernel_size {geometry.kernel_size[axis]}, stride {geometry.stride[axis]}, "
                f"padding {geometry.padding[axis]}, dilation {geometry.dilation[axis]}, "
                f"got {grad_output.shape[2 + axis]}; pass the geometry of the layer that made grad_output"
            )
    return geometry


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
