"""Moments of the gradient over successive micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pynas import ops
from pynas._errors import UserError
from pynas.stats._base import Statistic
from pynas.stats._products import GradientProduct
from pynas.stats.per_sample import widen


@dataclass
class RunningMoments:
    """Mean of g, mean of |g|, sum of (g - mean g)^2 over ``count`` gradients; variance ``m2 / count``."""

    mean: Tensor
    abs_mean: Tensor
    m2: Tensor
    count: int = 0

    @classmethod
    def zeros(cls, like: Tensor) -> RunningMoments:
        """Nothing seen yet."""
        return cls(torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like))

    def update(self, gradient: Tensor) -> None:
        """Take in one more gradient (Welford)."""
        self.count += 1
        ops.moments_update(gradient, self.mean, self.abs_mean, self.m2, self.count)


@dataclass(frozen=True)
class RunningGradMoments(Statistic[RunningMoments]):
    """Mean g, mean |g|, sum (g - mean g)^2 over gradients g of the passes of ``collect(micro_batches=k)``.

    Each pass forwards one micro-batch by itself, as the published ZiCo does with its two batches.

    Values: :class:`RunningMoments` by parameter name.
    """

    successive: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True

    def check(self, batch: int, group_size: int, passes: int) -> None:
        """One gradient has no deviation."""
        if passes < 2:
            raise UserError(
                f"micro_batches={passes}: moments over successive gradients need two micro-batches or more"
            )

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, RunningMoments],
    ) -> None:
        """Fold the gradient of this pass into the running values."""
        found = []
        if weight is not None:
            found.append((weight, product.wide_gradient()))
        if bias is not None:
            found.append((bias, product.bias_rows(product.batch)[0]))
        for name, gradient in found:
            if gradient.is_complex():
                raise UserError(
                    f"model: parameter {name!r} is complex, for which these moments are not defined"
                )
            wide = widen(gradient).contiguous()
            if name not in results:
                results[name] = RunningMoments.zeros(wide)
            results[name].update(wide)
