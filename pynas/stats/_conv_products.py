"""What a 2-D convolution contributes to its weight's gradient, and how the samples' gradients are formed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pynas import ops
from pynas.stats import per_sample
from pynas.stats._fast import fuses_conv3x3
from pynas.stats._products import GradientProduct

Pair = tuple[int, int]
# Winograd's kernel forms samples' gradients faster than ops.conv2d_grad_moments does where a sample has tiles
# of 4x4 pixels enough to pay for its last transform, and where all of them stay in cache until they are read:
# 16x16 images of 32 channels, not 8x8 ones of 64.
MIN_TILES, CACHED_BYTES = 16, 8 << 20


@dataclass(frozen=True)
class Geometry:
    """How a 2-D convolution slides."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


@dataclass(frozen=True)
class Conv2dProduct(GradientProduct):
    """F.conv2d: grad_output [B, O, Ho, Wo] and input [B, C, H, W]; weight [O, C/groups, kh, kw].

    ``shape`` is the parameter's own shape where it differs (a 1-D convolution runs as a 2-D one of height
    1), and ``bias_grad`` the gradient that the bias sees where that is not grad_output (transposed
    convolutions, whose two factors change places). With ``relu`` the convolution saw relu(input).
    """

    grad_output: Tensor
    input: Tensor
    geometry: Geometry
    shape: torch.Size
    bias_grad: Tensor | None = None
    relu: bool = False
    matrix: ClassVar[bool] = True
    _formed: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _whole: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0]

    def narrow(self, start: int, length: int) -> Conv2dProduct:
        bias_grad = None if self.bias_grad is None else self.bias_grad.narrow(0, start, length)
        return replace(
            self,
            grad_output=self.grad_output.narrow(0, start, length),
            input=self.input.narrow(0, start, length),
            bias_grad=bias_grad,
            _formed={},
            _whole=[],
        )

    def gradient(self) -> Tensor:
        if self._whole:
            return self._whole[0].to(self.input.dtype)
        if self._fuses:
            self._whole.append(self.wide_gradient())
            return self._whole[0].to(self.input.dtype)
        g = self.geometry
        weight = (self.grad_output.shape[1], self.input.shape[1] // g.groups, *g.kernel_size)
        dummy = self.input.new_empty(1).expand(
            weight
        )  # only its shape is read when grad_input is not asked for
        _, gradient, _ = torch.ops.aten.convolution_backward(
            self.grad_output, self._activated, dummy, None, g.stride, g.padding, g.dilation, False, (0, 0),
            g.groups, (False, True, False),
        )  # fmt: skip
        return cast(Tensor, gradient.reshape(self.shape))

    def wide_gradient(self) -> Tensor:
        """The sum of samples' gradients where those have been formed, else a product of its own."""
        if self._whole:
            return self._whole[0]
        if not self._fuses:
            return super().wide_gradient()
        if self.geometry.kernel_size == (1, 1):
            return ops.conv1x1_backward_weight(self.grad_output, self.input, self.relu)
        if self._formed:
            return self._unpacked(next(iter(self._formed.values())).sum(0))
        return ops.conv3x3_backward_weight(self.grad_output, self.input, self.relu)[0]

    @property
    def _fuses(self) -> bool:
        if self.relu:  # made by one of these kernels
            return True
        g = self.geometry
        shape = (self.grad_output.shape[1], self.input.shape[1] // g.groups, *g.kernel_size)
        weight = self.input.new_empty(1).expand(shape)
        return self.bias_grad is None and fuses_conv3x3(
            self.input, weight, g.stride, g.padding, g.dilation, g.groups
        )

    def _rows(self, group_size: int) -> Tensor | None:
        """The gradients by sample group, [G, 9 C O] in the kernel's order; None where tiles are faster."""
        if group_size in self._formed:
            return self._formed[group_size]
        batch, channels, height, width = self.input.shape
        groups, tiles = batch // group_size, -(-height // 4) * -(-width // 4)
        if self.geometry.kernel_size != (3, 3) or groups == 1 or not self._fuses:
            return None
        if (
            tiles * group_size < MIN_TILES
            or groups * 36 * channels * self.grad_output.shape[1] > CACHED_BYTES
        ):
            return None
        formed = ops.conv3x3_backward_weight(self.grad_output, self.input, self.relu, groups)
        rows = formed.permute(0, 3, 4, 2, 1).flatten(1)
        self._formed[group_size] = rows
        return rows

    def _unpacked(self, row: Tensor) -> Tensor:
        """One of those rows, or sums of them, as [O, C, 3, 3]."""
        shape = (3, 3, self.input.shape[1], self.grad_output.shape[1])
        return row.view(shape).permute(3, 2, 0, 1).contiguous()

    @property
    def _activated(self) -> Tensor:
        return torch.relu(self.input) if self.relu else self.input

    def bias_rows(self, group_size: int) -> Tensor:
        grad = self.grad_output if self.bias_grad is None else self.bias_grad
        samples = per_sample.widen(grad.flatten(2).sum(2, dtype=per_sample.wide(grad.dtype)))
        return torch.unflatten(samples, 0, (-1, group_size)).sum(1)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        found = self._moments(moments, group_size, bias=bias)
        if found.weight.sum is not None:
            self._whole[:] = [found.weight.sum]
        return found

    def _moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        rows = self._rows(group_size)
        if rows is not None:
            ones = rows.new_ones(len(rows), 1, 1)
            weight = ops.linear_grad_moments(ones, rows.unsqueeze(1), moments=tuple(moments)).weight
            beside = self.bias_moments(moments, group_size) if bias else None
            return ops.MomentSums(per_sample.map_moments(weight, self._unpacked), beside)
        fused_bias = bias and self.bias_grad is None
        found = ops.conv2d_grad_moments(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            moments=tuple(moments), group_size=group_size, bias=fused_bias,
        )  # fmt: skip
        beside = self.bias_moments(moments, group_size) if bias and not fused_bias else found.bias
        if beside is found.bias and len(self.shape) == 4:
            return found
        return ops.MomentSums(per_sample.reshape(found.weight, self.shape), beside)

    def norms(self, group_size: int) -> Tensor:
        return ops.conv2d_grad_norms(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            group_size=group_size,
        )  # fmt: skip

    def gram(self, group_size: int) -> Tensor:
        rows = self._rows(group_size)
        if rows is not None:
            return rows @ rows.T
        return ops.conv2d_grad_gram(
            self.grad_output, self._activated, self.geometry.kernel_size, **self._geometry(),
            group_size=group_size,
        )  # fmt: skip

    def _geometry(self) -> dict[str, Any]:
        g = self.geometry
        return {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.groups}


@dataclass(frozen=True)
class InterleavedProduct(Conv2dProduct):
    """``uses`` rows of factors to a sample; a group of m samples is a group of m * uses rows."""

    uses: int = 1

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0] // self.uses

    def narrow(self, start: int, length: int) -> Conv2dProduct:
        return super().narrow(start * self.uses, length * self.uses)

    def bias_rows(self, group_size: int) -> Tensor:
        return super().bias_rows(group_size * self.uses)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        return super().moments(moments, group_size * self.uses, bias=bias)

    def norms(self, group_size: int) -> Tensor:
        return super().norms(group_size * self.uses)

    def gram(self, group_size: int) -> Tensor:
        return super().gram(group_size * self.uses)
