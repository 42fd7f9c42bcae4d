"""Number of linear regions in which the samples of a batch lie."""

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

    Samples with the same pattern lie in the same region, in which the network is linear. In a wide network
    every sample has its own pattern, so the score only distinguishes networks that are small for their batch.
    The authors' code counts over thousands of random 3x3 crops of training images, of which it keeps one
    channel drawn at random, in networks with one input channel; pass such inputs and networks to reproduce
    that. (ZiCo's copy of TE-NAS leaves the regions out.)

    Chen, Gong, Wang: Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021.
    """

    name: ClassVar[str] = "linear_regions"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (CodeAgreement(),)
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Empty: a pattern belongs to the whole network."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """Number of samples whose pattern no earlier sample has."""
        found = agreement(statistics)
        alike = found.kernel == found.units
        return float((~alike.tril(-1).any(1)).sum())
