"""Norms of the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pynas.stats._base import Statistic
from pynas.stats.collect import matrix_names


@dataclass(frozen=True)
class WeightNorms(Statistic[float]):
    """||W_l||_2 of each weight of a convolution or linear layer, by name; known without a pass."""

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, float]:
        """Norms in float64."""
        return {
            name: float(torch.linalg.vector_norm(model.get_parameter(name).detach(), dtype=torch.float64))
            for name in matrix_names(model)
        }
