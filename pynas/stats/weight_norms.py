"""Norms of the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pynas.stats._base import Statistic
from pynas.stats.weights import weight_tensors


def _real(weight: Tensor) -> Tensor:
    """Complex values as pairs of real ones, which have the same norm."""
    return torch.view_as_real(weight.resolve_conj()) if weight.is_complex() else weight


@dataclass(frozen=True)
class WeightNorms(Statistic[float]):
    """||W_l||_2 of each weight, by name: whatever multiplies its input.

    A weight that its layer computes (weight norm, spectral norm) is one weight.
    """

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, float]:
        """Norms in float64."""
        return {
            name: float(torch.linalg.vector_norm(_real(weight), dtype=torch.float64))
            for name, weight in weight_tensors(model, inputs).items()
        }
