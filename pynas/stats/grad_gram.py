"""Inner products between per-sample gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pynas.stats import per_sample
from pynas.stats._base import Statistic
from pynas.stats._products import GradientProduct


@dataclass(frozen=True)
class GradGram(Statistic[Tensor]):
    """K_bc = <g_b, g_c> of each parameter: the empirical tangent kernel of the loss, layer by layer.

    Values: tensors [G, G] by parameter name; their sum over parameters is the Gram matrix of whole gradients.
    """

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, Tensor],
    ) -> None:
        """Take the Gram matrix of each parameter."""
        if weight is not None:
            results[weight] = product.gram(group_size)
        if bias is not None:
            rows = product.bias_rows(group_size)
            results[bias] = per_sample.gram(lambda: iter([rows]))
