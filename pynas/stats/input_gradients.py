"""The Jacobian of the outputs' sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from pynas.stats._base import Statistic, Watched
from pynas.stats.per_sample import widen


@dataclass(frozen=True)
class InputGradients(Statistic[Tensor]):
    """d(sum of all outputs)/dx by sample: one backward pass of the whole batch, which batch norm couples.

    Where a model gives several outputs it is the sum of the first. Inputs that are integers are represented
    by their embeddings.

    Values: ``{"inputs": J}``, J [B, features], float32 (float64 for float64 models).
    """

    watches: ClassVar[Watched] = "inputs"
    gradient_of: ClassVar[Literal["loss", "outputs"]] = "outputs"

    def observe_inputs(self, gradient: Tensor, results: dict[str, Tensor]) -> None:
        """Keep the rows."""
        results["inputs"] = widen(gradient)
