"""Jacobian covariance."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import InputGradients, Statistic, Statistics

EPSILON = 1e-5


@register
class JacobCov(Proxy):
    """-sum_i [ln(v_i + 1e-5) + 1 / (v_i + 1e-5)], v the eigenvalues of the correlations of Jacobian rows.

    A row is the gradient, with respect to one sample, of the sum of all logits of the batch; batch norm
    couples samples. Samples with similar rows (the network does not tell them apart) give eigenvalues near 0.
    A constant row makes the score undefined (NaN, as in the published code). Mellor, Turner, Storkey,
    Crowley: Neural Architecture Search without Training, arXiv:2006.04647v1; Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "jacob_cov"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (InputGradients(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Empty: the score is no sum over layers."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """The score, from eigenvalues in float64."""
        correlations = row_correlations(statistics[InputGradients]["inputs"])
        if not torch.isfinite(correlations).all():
            return float("nan")
        shifted = torch.linalg.eigvalsh(correlations) + EPSILON
        return -float((shifted.log() + shifted.reciprocal()).sum())


def row_correlations(rows: Tensor) -> Tensor:
    """Pearson correlations between rows [B, N], [B, B] in float64; NaN for a constant row."""
    centered = rows.double() - rows.double().mean(1, keepdim=True)
    unit = centered / centered.norm(dim=1, keepdim=True)
    correlations: Tensor = unit @ unit.T
    return correlations.clamp(-1, 1)
