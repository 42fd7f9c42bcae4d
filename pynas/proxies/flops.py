"""Number of multiply-adds."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.architecture import Architecture
from pynas.hardware import MacCount
from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics


@register
class Flops(Proxy):
    """Multiply-adds of one sample's forward pass (what the field's tables call FLOPs)."""

    name: ClassVar[str] = "flops"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (MacCount(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Multiply-adds by operator."""
        return {name: float(n) for name, n in statistics[MacCount].items()}

    def of_architecture(
        self, space: Any, architecture: Architecture, num_classes: int, inputs: Any
    ) -> float | None:
        """The space's own count, for the network as it would be trained."""
        return float(space.macs(architecture, num_classes, inputs.shape[-1], inputs.shape[1]))
