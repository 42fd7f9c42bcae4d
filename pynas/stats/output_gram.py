"""Inner products between samples' gradients of the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from pynas.stats._products import GradientProduct
from pynas.stats.grad_gram import GradGram


@dataclass(frozen=True)
class OutputGram(GradGram):
    """G_bc = <r_b, r_c>, r_b what sample b contributes to d(sum of all outputs)/d(weights).

    The tangent kernel, of every parameter called ``weight`` (of convolutions, linear layers, norms and
    embeddings; not of biases), or only of those that multiply their input (``parameters="weights"``). Where
    batch norm couples samples, r_b is the part of the batch's gradient that passes through sample b's
    activations; without coupling it is the gradient of sample b's outputs.

    Values: tensors [B, B] by parameter name; the kernel is their sum.
    """

    gradient_of: ClassVar[Literal["loss", "outputs"]] = "outputs"

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, Tensor],
    ) -> None:
        """Take the Gram matrix of each weight."""
        super().observe(product, weight, None, group_size, results)
