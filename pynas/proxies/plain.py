"""Plain: signed sensitivity."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Gradients, Statistic, Statistics


@register
class Plain(Proxy):
    """sum_w w dL/dw over weights: what multiplies its input.

    Abdelfattah, Mehrotra, Dudziak, Lane: Zero-Cost Proxies for Lightweight NAS, ICLR 2021.
    """

    name: ClassVar[str] = "plain"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (Gradients(parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Sum of w g by weight."""
        weights = statistics.weights
        return {n: float((weights[n].double() * g.double()).sum()) for n, g in statistics[Gradients].items()}
