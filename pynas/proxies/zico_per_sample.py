"""ZiCo over samples in place of batches, in one pass."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.proxies.zico import log_inverse_variation
from pynas.stats import GradMoments, Statistic, Statistics


@register
class ZicoPerSample(Proxy):
    """ZiCo's formula with one gradient per sample: one pass, hundreds of gradients instead of two.

    pynas's own variant. Many gradients make the deviation a stable estimate, whereas with two batches the few
    weights on which they nearly agree dominate. With batch norm in train mode, the gradient of a sample is
    its contribution to the gradient of the batch.
    """

    name: ClassVar[str] = "zico_per_sample"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (GradMoments(("abs", "centered"), parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """S_l by weight, as its logarithm."""
        result = {}
        for name, m in statistics[GradMoments].items():
            assert m.abs is not None
            assert m.centered is not None
            result[name] = log_inverse_variation(m.abs / m.count, m.centered / m.count)
        return result
