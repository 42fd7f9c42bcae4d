"""Number of weight layers."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.weight_norms import WeightNorms


@register
class Layers(Proxy):
    """Number of convolutions and linear layers that the output can depend on: a baseline hard to beat.

    Of a space's network without its dead edges, so the layers that training changes; of any other model all
    that it has.
    """

    name: ClassVar[str] = "layers"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (WeightNorms(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """One for each weight."""
        return dict.fromkeys(statistics[WeightNorms], 1.0)
