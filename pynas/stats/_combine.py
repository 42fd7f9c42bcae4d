"""Several uses of one parameter as one gradient product: g_b is their sum, taken before |.| and squares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas.stats._conv_products import Conv2dProduct, InterleavedProduct
from pynas.stats._products import GradientProduct, LinearProduct, chunked


def combine(parts: Sequence[GradientProduct]) -> GradientProduct:
    """One product whose g_b is the sum of the parts' g_b, exactly: the absolute value comes after the sum.

    Linear calls are laid end to end along their positions. Convolutions of one geometry become one
    convolution in which the uses of a sample are neighbours and form one group with it; smaller inputs are
    padded with zeros, to which a zero output gradient belongs. Anything else is summed group by group.
    """
    if len(parts) == 1:
        return parts[0]
    if all(type(p) is LinearProduct for p in parts):
        return LinearProduct(
            torch.cat([_positions(p.grad_output) for p in parts], 1),  # type: ignore[attr-defined]
            torch.cat([_positions(p.input) for p in parts], 1),  # type: ignore[attr-defined]
        )
    convs = [p for p in parts if type(p) is Conv2dProduct and p.bias_grad is None]
    if len(convs) == len(parts) and len({p.geometry for p in convs}) == 1:
        grads, inputs = _interleave([p.grad_output for p in convs]), _interleave([p.input for p in convs])
        return InterleavedProduct(grads, inputs, convs[0].geometry, convs[0].shape, uses=len(convs))
    return SummedProduct(tuple(parts))


def _positions(x: Tensor) -> Tensor:
    return x.unsqueeze(1) if x.dim() == 2 else x.flatten(1, -2)


def _interleave(tensors: Sequence[Tensor]) -> Tensor:
    height, width = (max(t.shape[dim] for t in tensors) for dim in (2, 3))
    padded = [F.pad(t, (0, width - t.shape[3], 0, height - t.shape[2])) for t in tensors]
    return torch.stack(padded, 1).flatten(0, 1)  # [B * uses, C, H, W], the uses of one sample side by side


@dataclass(frozen=True)
class SummedProduct(GradientProduct):
    """One parameter used by calls of different kinds: the sum over the calls, formed group by group."""

    parts: tuple[GradientProduct, ...]

    @property
    def batch(self) -> int:
        return self.parts[0].batch

    def narrow(self, start: int, length: int) -> SummedProduct:
        return SummedProduct(tuple(part.narrow(start, length) for part in self.parts))

    def gradient(self) -> Tensor:
        return torch.stack([part.gradient() for part in self.parts]).sum(0)

    def rows(self, group_size: int) -> Iterator[Tensor]:
        def each(part: GradientProduct) -> Iterator[Tensor]:
            for chunk in part.rows(group_size):
                yield from chunk

        return chunked(torch.stack(r).sum(0) for r in zip(*map(each, self.parts), strict=True))

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("biases of shared calls are combined on their own")
