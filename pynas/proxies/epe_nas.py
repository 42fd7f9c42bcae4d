"""EPE-NAS: correlations of Jacobians within classes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.proxies.jacob_cov import row_correlations
from pynas.stats import InputGradients, Statistic, Statistics

EPSILON = 1e-5
MANY_CLASSES = 100


@register
class EpeNas(Proxy):
    """sum_c |s_c|, s_c = sum_ij ln(|C_ij| + 1e-5), C the correlations of Jacobian rows of samples of class c.

    Rows are those of ``jacob_cov``. With more than 100 outputs, s_c is divided by the number of samples of
    its class, classes with one sample do not count, and the score is the mean over c of sum_d |s_c - s_d|.
    Targets are labels [B] or probabilities [B, C].

    Lopes, Alirezazadeh, Alexandre: EPE-NAS: Efficient Performance Estimation Without Training for Neural
    Architecture Search, ICANN 2021; the formula is NASLib's.
    """

    name: ClassVar[str] = "epe_nas"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (InputGradients(),)
    needs_labels: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Empty: the score is no sum over layers."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """The score, from correlations in float64."""
        rows = statistics[InputGradients]["inputs"]
        labels = _labels(statistics.targets, len(rows))
        many = statistics.output_shape[-1] > MANY_CLASSES
        found = []
        for label in torch.unique(labels):
            members = rows[labels == label]
            if many and len(members) == 1:
                continue
            value = float((row_correlations(members).abs() + EPSILON).log().sum())
            found.append(value / len(members) if many else value)
        if not many:
            return sum(abs(s) for s in found)
        return sum(abs(a - b) for a in found for b in found) / max(len(found), 1)


def _labels(targets: Any, batch: int) -> Tensor:
    if isinstance(targets, Tensor):
        if targets.shape == (batch,) and not targets.is_floating_point():
            return targets
        if targets.dim() == 2 and targets.shape[0] == batch and targets.is_floating_point():
            return torch.argmax(targets, 1)
    got = f"a tensor {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
    raise ValueError(f"epe_nas needs a class label of each sample as targets, got {got}")
