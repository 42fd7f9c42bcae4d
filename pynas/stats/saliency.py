"""What the outputs of convolutions and linear calls contribute, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pynas.stats._base import Statistic, Watched
from pynas.stats._rows import widen


@dataclass(frozen=True)
class ChannelSaliency(Statistic[Tensor]):
    """sum_b (sum_t y_bkt dL/dy_bkt)^2 of the outputs y of each convolution and linear call, samples b,
    channels k, positions t.

    The channels of a linear call are its last dimension. Uses of one weight add up.

    Values: tensors [K] by the name of the weight, float32 (float64 for float64 models).
    """  # noqa: D205

    watches: ClassVar[Watched] = "saliency"

    def observe_saliency(self, name: str, saliency: Tensor, results: dict[str, Tensor]) -> None:
        """Add the squares over samples."""
        squares = widen(saliency).square().sum(0)
        results[name] = results[name] + squares if name in results else squares
