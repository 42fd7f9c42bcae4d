"""Condition number of the neural tangent kernel, from one backward pass."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas._plural import counted
from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.output_gram import OutputGram


@register
class NTKCondition(Proxy):
    """lambda_max / lambda_min of G = R R^T, R's rows samples' gradients of the sum of logits; less is better.

    In train mode, with respect to weights: what multiplies its input. Rows are what each sample
    contributes to one backward pass of the whole batch. Without batch norm that is the gradient of the
    sample's own logits, as in the authors' code; where batch norm couples samples theirs is another one
    (one sample's logits through all samples' activations, here all logits through one sample's), takes a
    backward pass per sample and is ``ntk_condition_tenas``. A kernel that is singular to rounding is a
    failure; both are where a batch norm without a ReLU behind it comes last, which makes the sum of all
    logits a constant.

    Chen, Gong, Wang: Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021.
    """

    name: ClassVar[str] = "ntk_condition"
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[tuple[Statistic[Any], ...]] = (OutputGram(parameters="weights"),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """None: the eigenvalues are of the sum."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """Ratio of the extreme eigenvalues, in float64."""
        grams = list(statistics[OutputGram].values())
        if not grams:
            raise ArithmeticError("the outputs do not depend on any weight")
        return condition(torch.stack(grams).sum(0, dtype=torch.float64), grams[0].dtype)


def condition(kernel: Tensor, precision: torch.dtype) -> float:
    """lambda_max / lambda_min of a kernel whose entries carry the rounding of ``precision``.

    ArithmeticError where it is singular to that rounding, B times which moves an eigenvalue.
    """
    eigenvalues = torch.linalg.eigvalsh(kernel.double())
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if not smallest > len(kernel) * torch.finfo(precision).eps * largest:
        raise ArithmeticError(
            f"the tangent kernel of {counted(len(kernel), 'sample')} is singular up to rounding: eigenvalues "
            f"from {smallest:.1e} to {largest:.1e}"
        )
    return largest / smallest
