"""GraSP: gradient signal preservation."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Curvature, Statistic, Statistics


@register
class Grasp(Proxy):
    """sum_w -w (H g)_w, g = dL/dw, H the Hessian, over weights: what multiplies its input.

    Gradient and Hessian are of the same batch, at temperature 1. The sign is that of the proxy, not of the
    pruning criterion. Wang, Zhang, Grosse: Picking Winning Tickets Before Training by Preserving Gradient
    Flow, ICLR 2020; as a proxy: Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "grasp"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (Curvature(),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """-w (H g) summed over each weight."""
        return {name: -value for name, value in statistics[Curvature].items()}
