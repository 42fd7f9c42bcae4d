"""Gradients of zero, of parameters in parts of a network that nothing depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pynas import ops
from pynas.stats import per_sample
from pynas.stats._products import GradientProduct


@dataclass(frozen=True)
class ZeroProduct(GradientProduct):
    """Gradients of zero of each of ``samples`` samples, of a tensor like ``parameter``."""

    parameter: Tensor
    samples: int

    @property
    def batch(self) -> int:
        return self.samples

    def narrow(self, start: int, length: int) -> ZeroProduct:
        return ZeroProduct(self.parameter, length)

    def gradient(self) -> Tensor:
        return torch.zeros_like(self.parameter)

    def bias_rows(self, group_size: int) -> Tensor:
        raise NotImplementedError("zeros have no bias beside them")

    def rows(self, group_size: int) -> Iterator[Tensor]:
        zeros = self.gradient()
        yield zeros.expand(self.samples // group_size, *zeros.shape)

    def moments(self, moments: Sequence[str], group_size: int, *, bias: bool) -> ops.MomentSums:
        found = per_sample.moments([self.gradient()[None]], moments)
        return ops.MomentSums(replace(found, count=self.samples // group_size))

    def norms(self, group_size: int) -> Tensor:
        return per_sample.widen(self.parameter.new_zeros(self.samples // group_size))

    def gram(self, group_size: int) -> Tensor:
        groups = self.samples // group_size
        return per_sample.widen(self.parameter.new_zeros(groups, groups))
