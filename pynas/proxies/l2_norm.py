"""Norm of the weights."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.weight_norms import WeightNorms


@register
class L2Norm(Proxy):
    """sum_l ||W_l||_2 over weights: what multiplies its input, as initialised, including dead ones.

    A sum of norms, not the norm over all weights. A baseline of Abdelfattah, Mehrotra, Dudziak, Lane:
    Zero-Cost Proxies for Lightweight NAS, ICLR 2021.
    """

    name: ClassVar[str] = "l2_norm"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (WeightNorms(),)
    over_weights: ClassVar[bool] = True
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """||W_l|| by weight."""
        return dict(statistics[WeightNorms])
