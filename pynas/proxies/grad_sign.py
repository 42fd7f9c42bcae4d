"""GradSign: agreement of the samples' gradient signs."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import BatchProbe, Probe, Proxy
from pynas.proxies._registry import register
from pynas.stats import GradMoments, Statistic, Statistics


@register
class GradSign(Proxy):
    """sum_w |sum_i sign(dl_i/dw)|, l_i the loss of sample i forwarded alone, over conv and linear weights.

    One pass normalises samples one by one (``batch_norm="group"``), as if each were forwarded separately.
    Zhang, Jia: GradSign: Model Performance Inference with Theoretical Insights, ICLR 2022.
    """

    name: ClassVar[str] = "grad_sign"
    probe: ClassVar[Probe] = BatchProbe(batch_norm="group")
    needs: ClassVar[tuple[Statistic[Any], ...]] = (GradMoments(("sign",), parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Sum of |sum of signs| by weight."""
        result = {}
        for name, m in statistics[GradMoments].items():
            assert m.sign is not None
            result[name] = float(m.sign.double().abs().sum())
        return result
