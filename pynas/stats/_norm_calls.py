"""Normalisation layers as recorded calls: scale and shift are what has a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from pynas import ops
from pynas.stats._calls import Call
from pynas.stats._fast import fuses_batch_norm
from pynas.stats._layout import FIRST, Layout
from pynas.stats._products import AffineProduct

aten = torch.ops.aten


@dataclass(frozen=True)
class BatchNormCall(Call):
    """Batch normalisation by the batch's own statistics, by those of each sample group, or by given ones.

    Attributes:
        groups: Number of sample groups that are normalised each by itself; 1 for the whole batch.
        running: (mean, variance) to normalise with instead.
    """

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    groups: int = 1
    running: tuple[Tensor, Tensor] | None = None
    layout: Layout = FIRST

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        mean: Tensor | None
        mean, variance = self.running or (None, None)
        training = self.running is None
        if training and fuses_batch_norm(x, self.weight, self.bias):
            y, means, rstds = ops.batch_norm(x, self.weight, self.bias, self.eps, self.groups)
            return y, (means.view(self.groups, -1), rstds.view(self.groups, -1))
        weight, bias = self._folded(self.weight), self._folded(self.bias)
        parts = [
            torch.native_batch_norm(part, weight, bias, mean, variance, training, 0.0, self.eps)
            for part in self._parts(x)
        ]
        if not training:
            return parts[0][0], ()
        if self.groups == 1:
            y, mean, rstd = parts[0]
            return y, (mean.unsqueeze(0), rstd.unsqueeze(0))
        means, rstds = (torch.cat([p[i] for p in parts]).view(self.groups, -1) for i in (1, 2))
        return self._whole([p[0] for p in parts], x), (means, rstds)

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        if self.running is not None:
            # By hand: for one sample, a contiguous input and a channels_last gradient PyTorch 2.13 is wrong.
            scale = torch.rsqrt(self.running[1] + self.eps)
            scale = scale if self.weight is None else scale * self.weight
            return (grad * scale.view(-1, *(1,) * (x.dim() - 2))).to(x.dtype)
        if fuses_batch_norm(x, self.weight, self.bias):
            return ops.batch_norm_backward(grad, x, self.weight, *saved)
        weight = self._folded(self.weight)
        grads, xs = self._parts(grad), self._parts(x)
        means, rstds = (s.view(len(xs), -1) for s in saved)
        parts = [
            aten.native_batch_norm_backward(
                grads[i], xs[i], weight, None, None, means[i], rstds[i], True, self.eps, (True, False, False)
            )[0]
            for i in range(len(xs))
        ]  # fmt: skip
        return self._whole(parts, x)

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> AffineProduct:
        if self.running is None:
            means, rstds = saved
        else:
            means, rstds = self.running[0].unsqueeze(0), torch.rsqrt(self.running[1] + self.eps).unsqueeze(0)
        if self.groups > 1:  # one row of statistics per sample
            means, rstds = (s.repeat_interleave(x.shape[0] // self.groups, 0) for s in (means, rstds))
        return AffineProduct(
            _channels(grad, self.layout), _channels(x, self.layout), means.unsqueeze(2), rstds.unsqueeze(2),
            x.shape[1:2],
        )  # fmt: skip

    @property
    def _loops(self) -> bool:
        """Whether groups run one after the other on slices; many of them fold into the channels."""
        return self.groups <= 8

    def _folded(self, per_channel: Tensor | None) -> Tensor | None:
        return per_channel if per_channel is None or self._loops else per_channel.repeat(self.groups)

    def _parts(self, x: Tensor) -> list[Tensor]:
        if self.groups == 1:
            return [x]
        if self._loops:
            return list(x.chunk(self.groups))
        return [
            torch.unflatten(x, 0, (self.groups, -1)).transpose(0, 1).flatten(1, 2)
        ]  # [m, groups * C, ...]

    def _whole(self, parts: list[Tensor], like: Tensor) -> Tensor:
        if self.groups == 1:
            return parts[0]
        if self._loops:
            return torch.cat(parts)
        whole = torch.unflatten(parts[0], 1, (self.groups, -1)).transpose(0, 1).flatten(0, 1)
        return whole if like.dim() != 4 else whole.contiguous(memory_format=suggest_memory_format(like))


def _channels(x: Tensor, layout: Layout) -> Tensor:
    """[B, C, T]; several rows of one sample are positions of its own."""
    x = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
    if layout.positions == 1:
        return x
    rows = torch.unflatten(layout.stacked(x), 0, (-1, layout.positions))
    return rows.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class LayerNormCall(Call):
    """Layer normalisation over the trailing ``shape``; with ``rms`` by the root mean square, not centred."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    shape: tuple[int, ...]
    arrange: Callable[[Tensor], Tensor]
    rms: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not self.rms:
            y, mean, rstd = torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)
            return y, (mean, rstd)
        rstd = torch.rsqrt(x.square().mean(self._dims, keepdim=True, dtype=_wide(x)) + self.eps)
        y = (x * rstd).to(x.dtype)
        return y if self.weight is None else y * self.weight, (rstd,)

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        if not self.rms:
            mean, rstd = saved
            gradient = aten.native_layer_norm_backward(
                grad, x, self.shape, mean, rstd, self.weight, self.bias, (True, False, False)
            )[0]
            return cast(Tensor, gradient)
        (rstd,) = saved
        scaled = grad if self.weight is None else grad * self.weight
        normalised = x * rstd
        return (rstd * (scaled - normalised * (scaled * normalised).mean(self._dims, keepdim=True))).to(
            x.dtype
        )

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> AffineProduct:
        rstd = saved[-1]
        mean = torch.zeros_like(rstd) if self.rms else saved[0]

        def tokens(t: Tensor) -> Tensor:  # [B, ..., *shape] -> [B, C, T]
            t = self.arrange(t)
            t = t.flatten(t.dim() - len(self.shape))
            return (t.flatten(1, -2) if t.dim() > 2 else t.unsqueeze(1)).transpose(1, 2)

        return AffineProduct(tokens(grad), tokens(x), tokens(mean), tokens(rstd), torch.Size(self.shape))

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


@dataclass(frozen=True)
class GroupNormCall(Call):
    """Group normalisation with ``groups`` groups of channels; instance normalisation has one per channel."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    groups: int
    layout: Layout = FIRST

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, mean, rstd = torch.native_group_norm(
            x.contiguous(), self.weight, self.bias, *self._sizes(x), self.groups, self.eps
        )
        return y, (mean, rstd)

    def input_grad(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
        mean, rstd = saved
        gradient = aten.native_group_norm_backward(
            grad.contiguous(), x.contiguous(), mean, rstd, self.weight, *self._sizes(x), self.groups,
            (True, False, False),
        )[0]  # fmt: skip
        return cast(Tensor, gradient)

    def product(self, grad: Tensor, x: Tensor, saved: tuple[Tensor, ...]) -> AffineProduct:
        mean, rstd = (s.view(x.shape[0], self.groups, 1) for s in saved)
        if self.layout.positions > 1:  # statistics of each of a sample's rows, at all positions of the row
            spread = x.shape[2:].numel()
            mean, rstd = (_channels(s.expand(-1, -1, spread), self.layout) for s in (mean, rstd))
        return AffineProduct(
            _channels(grad, self.layout), _channels(x, self.layout), mean, rstd, x.shape[1:2]
        )

    def _sizes(self, x: Tensor) -> tuple[int, int, int]:
        return x.shape[0], x.shape[1], math.prod(x.shape[2:])
