"""Number of linear regions that a batch reaches."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.proxies.naswot import agreement
from pynas.stats import Statistic, Statistics
from pynas.stats.code_agreement import CodeAgreement


@register
class LinearRegions(Proxy):
    """Number of distinct sign patterns of all ReLU units over the samples of the batch; at most B.

    Samples with one pattern lie in one region in which the network is linear. Every sample of a wide network
    has a pattern of its own, so the score only tells networks apart that are small for their batch: the
    paper counts over thousands of 3x3 images of standard normal noise in networks of one channel. Pass such
    inputs and networks to repeat that.

    Chen, Gong, Wang: Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021.
    """

    name: ClassVar[str] = "linear_regions"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (CodeAgreement(),)
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """None: a pattern is of the whole network."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """Samples that agree with no earlier one in all units."""
        found = agreement(statistics)
        alike = found.kernel == found.units
        return float((~alike.tril(-1).any(1)).sum())
