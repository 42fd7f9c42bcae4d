"""What a proxy is: statistics it needs, from which probe, and a pure function of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pynas.architecture import Architecture
from pynas.stats import Statistic, Statistics
from pynas.stats.collect import BatchNorm


@dataclass(frozen=True, slots=True)
class Probe:
    """How the network is probed. Proxies with equal probes share one pass.

    Attributes:
        batch_norm: As in :func:`pynas.stats.collect`.
        group_size: Samples to a group.
        micro_batches: Split the batch into the caller's number of micro-batches, one pass each.
    """

    batch_norm: BatchNorm = "batch"
    group_size: int = 1
    micro_batches: bool = False


class Proxy(ABC):
    """A score of an untrained network that needs no training.

    A new one is a subclass in a file of its own, registered there, and one import line in
    ``proxies/__init__.py``. The first line of its docstring is what ``pynas proxies`` shows.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    probe: ClassVar[Probe] = Probe()
    needs: ClassVar[tuple[Statistic[Any], ...]]

    @abstractmethod
    def layers(self, statistics: Statistics) -> dict[str, float]:
        """What each layer contributes to the score, by parameter name."""

    def score(self, statistics: Statistics) -> float:
        """The score: the sum over layers unless a proxy says otherwise."""
        return math.fsum(self.layers(statistics).values())

    def of_architecture(
        self, space: Any, architecture: Architecture, num_classes: int, inputs: Any
    ) -> float | None:
        """The score where the space itself knows it exactly (sizes, costs); None to measure a network."""
        return None
