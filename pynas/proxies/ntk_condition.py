"""Condition number of the neural tangent kernel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.output_gram import OutputGram


@register
class NTKCondition(Proxy):
    """lambda_max / lambda_min of G = R R^T, R's rows samples' gradients of the sum of logits; less is better.

    With respect to every weight, those of batch norms too, in train mode. Rows are what each sample
    contributes to one backward pass of the batch. The authors' code makes a backward pass of each sample's
    logits instead: the same without batch norm, while with it their rows carry one sample's logits to all
    samples' activations and these carry all logits to one sample's. A kernel that is singular to rounding is
    a failure (theirs gives NaN or noise).

    Chen, Gong, Wang: Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021.
    """

    name: ClassVar[str] = "ntk_condition"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[tuple[Statistic[Any], ...]] = (OutputGram(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """None: the eigenvalues are of the sum."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """Ratio of the extreme eigenvalues, in float64."""
        grams = list(statistics[OutputGram].values())
        if not grams:
            raise ArithmeticError("the outputs do not depend on any weight")
        kernel = torch.stack(grams).sum(0, dtype=torch.float64)
        eigenvalues = torch.linalg.eigvalsh(kernel)
        smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
        # Entries carry the rounding of the precision they were summed in.
        if smallest <= torch.finfo(grams[0].dtype).eps * largest:
            raise ArithmeticError(
                f"the tangent kernel of {len(kernel)} samples is singular to rounding: eigenvalues from "
                f"{smallest:.1e} to {largest:.1e}"
            )
        return largest / smallest
