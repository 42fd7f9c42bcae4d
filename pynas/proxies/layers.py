"""Number of weight layers."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.weight_norms import WeightNorms


@register
class Layers(Proxy):
    """Number of convolutions and linear layers that the output can depend on: a strong baseline.

    For a space's network, dead edges do not count, so these are the layers that training changes; for any
    other model, all its layers count.
    """

    name: ClassVar[str] = "layers"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (WeightNorms(),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """One for each weight."""
        return dict.fromkeys(statistics[WeightNorms], 1.0)
