"""Fisher information of activations."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import ChannelSaliency, Statistic, Statistics


@register
class Fisher(Proxy):
    """sum_l sum_k n_lk F_lk, F_lk = 1/2 mean_b (sum_hw y_bkhw dL/dy_bkhw)^2, y the outputs of layer l.

    Layers are convolutions and linear layers. Channel k counts once for each of the n_lk weights that compute
    it, because the published code assigns its value to each of them. Turner et al.,
    BlockSwap, ICLR 2020; as a proxy: Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "fisher"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (ChannelSaliency(parameters="weights"),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """The sum over the weights of each layer."""
        weights = statistics.weights
        return {
            name: weights[name].numel() / len(squares) * float(squares.sum()) / (2 * statistics.batch)
            for name, squares in statistics[ChannelSaliency].items()
        }
