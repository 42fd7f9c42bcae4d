"""Norm of the gradient."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Gradients, Statistic, Statistics


@register
class GradNorm(Proxy):
    """sum_l ||dL/dW_l||_2 over weights: what multiplies its input, L the mean loss of one batch.

    A sum of norms, not the norm over all weights. Abdelfattah, Mehrotra, Dudziak, Lane: Zero-Cost Proxies for
    Lightweight NAS, ICLR 2021.
    """

    name: ClassVar[str] = "grad_norm"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (Gradients(parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """||g_l|| by weight."""
        return {name: float(g.double().norm()) for name, g in statistics[Gradients].items()}
