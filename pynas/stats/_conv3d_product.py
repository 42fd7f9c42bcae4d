"""What a 3-D convolution contributes to its weight's gradient: that of a 2-D one for each slice in depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas import ops
from pynas.stats import per_sample
from pynas.stats._conv_products import Geometry, InterleavedProduct
from pynas.stats._products import GradientProduct

Triple = tuple[int, ...]


@dataclass(frozen=True)
class Conv3dProduct(GradientProduct):
    """F.conv3d: grad_output [B * uses, O, Do, Ho, Wo] and input [B * uses, C, D, H, W].

    Slice i in depth of the weight sees frames i * dilation + stride * d of the padded input where the output
    has frame d: a 2-D convolution whose uses by one sample are its frames.
    """

    grad_output: Tensor
    input: Tensor
    shape: torch.Size
    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int
    uses: int = 1
    bias_grad: Tensor | None = None
    matrix: ClassVar[bool] = True

    @property
    def batch(self) -> int:
        return self.grad_output.shape[0] // self.uses

    def narrow(self, start: int, length: int) -> Conv3dProduct:
        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.narrow(0, start * self.uses, length * self.uses)

        grad, x = cut(self.grad_output), cut(self.input)
        assert grad is not None
        assert x is not None
        return replace(self, grad_output=grad, input=x, bias_grad=cut(self.bias_grad))

    def _slices(self) -> Iterator[InterleavedProduct]:
        frames = self.grad_output.shape[2]
        grads = self.grad_output.transpose(1, 2).flatten(0, 1)
        x = F.pad(self.input, (0, 0, 0, 0, self.padding[0], self.padding[0]))
        geometry = Geometry(
            (self.shape[3], self.shape[4]),
            (self.stride[1], self.stride[2]),
            (self.padding[1], self.padding[2]),
            (self.dilation[1], self.dilation[2]),
            self.groups,
        )
        plane = torch.Size((*self.shape[:2], *self.shape[3:]))
        for i in range(self.shape[2]):
            first = i * self.dilation[0]
            seen = x[:, :, first : first + (frames - 1) * self.stride[0] + 1 : self.stride[0]]
            yield InterleavedProduct(
                grads, seen.transpose(1, 2).flatten(0, 1), geometry, plane, uses=frames * self.uses
            )

    def gradient(self) -> Tensor:
        return torch.stack([part.gradient() for part in self._slices()], 2)

    def bias_rows(self, group_size: int) -> Tensor:
        grad = self.grad_output if self.bias_grad is None else self.bias_grad
        sums = per_sample.widen(grad).flatten(2).sum(2)
        return torch.unflatten(sums, 0, (-1, group_size * self.uses)).sum(1)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        parts = [part.moments(moments, group_size, bias=False).weight for part in self._slices()]
        weight = per_sample.stack(parts, 2)
        return ops.MomentSums(weight, self.bias_moments(moments, group_size) if bias else None)

    def norms(self, group_size: int) -> Tensor:
        return torch.stack([part.norms(group_size) for part in self._slices()]).sum(0)

    def gram(self, group_size: int) -> Tensor:
        return torch.stack([part.gram(group_size) for part in self._slices()]).sum(0)
