"""What the outputs of convolutions and linear calls contribute, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pynas.stats._base import Statistic, Watched


@dataclass(frozen=True)
class ChannelSaliency(Statistic[Tensor]):
    """sum_b (sum_t y_bkt dL/dy_bkt)^2 of the outputs y of each convolution and linear call.

    Over samples b and positions t, by channel k. Channels of a linear call are its last dimension. Uses of
    one weight add up.

    Values: tensors [K] by the name of the weight, float64.
    """

    watches: ClassVar[Watched] = "saliency"

    def observe_saliency(self, name: str, saliency: Tensor, results: dict[str, Tensor]) -> None:
        """Add the squares over samples."""
        squares = saliency.double().square().sum(0)
        results[name] = results[name] + squares if name in results else squares
