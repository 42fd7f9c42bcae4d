"""The ordinary gradient of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pynas.stats._base import Statistic
from pynas.stats._products import GradientProduct


@dataclass(frozen=True)
class Gradients(Statistic[Tensor]):
    """sum_b g_b = dL/dw of the whole batch: what ``loss.backward()`` would leave in ``.grad``.

    Values: tensors in the parameter's shape and dtype by parameter name. The model's own ``.grad`` is not
        touched.
    """

    of_whole_batch: ClassVar[bool] = True

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, Tensor],
    ) -> None:
        """Take the whole gradient of each parameter."""
        if weight is not None:
            results[weight] = product.gradient()
        if bias is not None:
            rows = product.bias_rows(product.batch)
            results[bias] = rows[0]
