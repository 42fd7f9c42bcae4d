"""Norms of the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pynas.stats._base import ModelValues, Statistic
from pynas.stats.per_sample import as_real
from pynas.stats.weights import weight_tensors


@dataclass(frozen=True)
class WeightNorms(Statistic[float]):
    """||W_l||_2 of each weight, by name: whatever multiplies its input.

    A weight that its layer computes (weight norm, spectral norm) is one weight.
    """

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, float]:
        """Norms in float64."""
        return self.of_model(model, inputs).values

    def of_model(self, model: nn.Module, inputs: Any) -> ModelValues[float]:
        """Norms in float64, and which parameters nobody could follow."""
        weights, unseen = weight_tensors(model, inputs)
        norms = {
            name: float(torch.linalg.vector_norm(as_real(weight), dtype=torch.float64))
            for name, weight in weights.items()
        }
        return ModelValues(norms, frozenset(norms), unseen)
