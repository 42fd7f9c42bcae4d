"""ZiCo: inverse coefficient of variation of gradients over batches."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas.proxies._base import BatchProbe, Probe, Proxy
from pynas.proxies._registry import register
from pynas.stats import RunningGradMoments, Statistic, Statistics


@register
class Zico(Proxy):
    """sum_l ln sum_w E|g_w| / std(g_w) over successive batches, over weights: what multiplies its input.

    ``std`` is the population standard deviation of the signed gradient, as in the authors' code (the paper
    writes that of the absolute gradient). Weights whose gradient does not vary (std exactly 0) are left out;
    a layer with only such weights contributes 0. Each batch has its own forward pass in train mode.

    Li, Yang, Bhardwaj, Marculescu: ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients,
    ICLR 2023.
    """

    name: ClassVar[str] = "zico"
    probe: ClassVar[Probe] = BatchProbe(micro_batches=True)
    needs: ClassVar[tuple[Statistic[Any], ...]] = (RunningGradMoments(parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """S_l by weight, as its logarithm."""
        return {
            name: log_inverse_variation(m.abs_mean, m.m2 / m.count)
            for name, m in statistics[RunningGradMoments].items()
        }


def log_inverse_variation(abs_mean: Tensor, variance: Tensor) -> float:
    """Logarithm of sum_w E|g_w| / std(g_w) over weights that vary; 0 when the sum is 0 or empty."""
    ratio = torch.where(variance != 0, abs_mean / variance.sqrt(), 0)
    total = float(ratio.sum(dtype=torch.float64))
    return math.log(total) if total != 0 else 0.0
