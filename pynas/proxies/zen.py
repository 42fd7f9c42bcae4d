"""Zen score as published code computes it."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Probe, Proxy
from pynas.proxies._registry import register
from pynas.proxies._zen import FeatureChange, NormVariances, ZenProbe, log_terms
from pynas.stats import Statistic, Statistics


@register
class Zen(Proxy):
    """ln D + sum over batch norms of ln sqrt(mean_c running_var), D the change of the feature map.

    D = mean over samples of ||f(x) - f(x + 0.01 x')||_1 on the map before global pooling, x and x' ~ N(0, 1),
    of a copy of the network with weights drawn from N(0, 1), in two forward passes in train mode; at most 16
    samples, which rank like 64. As in the code of Zen-NAS and of the survey, variances are those that batch
    norms track in these two passes, starting from 1, so that momentum 0.1 dampens them. ``zen_zennas`` uses
    those of the batch.

    Lin, Wang, Sun, Chen, Sun, Qian, Li, Jin: Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition,
    ICCV 2021.
    """

    name: ClassVar[str] = "zen"
    probe: ClassVar[Probe] = ZenProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]] = (FeatureChange(), NormVariances())
    whole_network: ClassVar[bool] = True
    needs_floating_inputs: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Logarithms: of D as "feature map", and of each batch norm's scale."""
        return log_terms(statistics, lambda found: found.running)
