"""What the outputs of convolutions and linear calls contribute, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
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
        known = results.get(name)
        if known is None:
            results[name] = squares
        elif len(known) == len(squares):
            results[name] = known + squares
        else:  # parts of the weight that have channels of their own
            results[name] = torch.cat([known, squares])
