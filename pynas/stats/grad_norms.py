"""Norms of per-sample gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pynas.stats import per_sample
from pynas.stats._base import Statistic
from pynas.stats._products import GradientProduct


@dataclass(frozen=True)
class GradNorms(Statistic[Tensor]):
    """||g_b||^2 of each parameter, one per sample group.

    Values: tensors [G] of squared norms by parameter name; their sum over parameters is the squared norm of
        the whole
    gradient of each group.
    """

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, Tensor],
    ) -> None:
        """Take the norms of each parameter."""
        if weight is not None:
            results[weight] = product.norms(group_size)
        if bias is not None:
            results[bias] = per_sample.norms(product.bias_rows(group_size))
