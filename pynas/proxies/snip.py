"""SNIP: connection sensitivity."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Gradients, Statistic, Statistics


@register
class Snip(Proxy):
    """sum_w |w dL/dw| over weights: what multiplies its input.

    Lee, Ajanthan, Torr: SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019; as a
    proxy: Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "snip"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (Gradients(parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Sum of |w g| by weight."""
        weights = statistics.weights
        return {
            n: float((weights[n].double() * g.double()).abs().sum()) for n, g in statistics[Gradients].items()
        }
