"""How many ReLU units are alike between samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pynas import ops
from pynas.stats._base import Statistic, Watched


@dataclass
class Agreement:
    """What the ReLUs of a network have in common between samples.

    Attributes:
        kernel: K_ij = number of units on the same side of zero in samples i and j; int64 [B, B].
        units: Number of units N, which is what K has on its diagonal.
    """

    kernel: Tensor
    units: int = 0


@dataclass(frozen=True)
class CodeAgreement(Statistic[Agreement]):
    """K_ij = #{units u : (x_iu > 0) = (x_ju > 0)} over the inputs x of all ReLU calls, as one sum.

    In matrices, K = sum over ReLUs of X X^T + (1 - X)(1 - X)^T with X = (x > 0) of shape [B, units]. ReLUs
    are calls of ``relu`` and ``relu6`` in any form; other activations have no codes.

    Values: ``{"network": Agreement}``, and {} for a network without ReLUs.
    """

    watches: ClassVar[Watched] = "relu"

    def observe_relu(self, x: Tensor, key: str, uses: int, results: dict[str, Agreement]) -> None:
        """Add one layer's agreement; its codes are not kept."""
        batch = x.shape[0]
        if "network" not in results:
            results["network"] = Agreement(torch.zeros(batch, batch, dtype=torch.int64, device=x.device))
        total = results["network"]
        ops.code_agreement_update(x, total.kernel, uses)
        total.units += uses * x.shape[1:].numel()
