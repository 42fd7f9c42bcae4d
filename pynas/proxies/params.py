"""Number of parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from pynas.architecture import Architecture
from pynas.hardware import ParameterCount
from pynas.proxies._base import Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics


@register
class Params(Proxy):
    """Number of parameters: the baseline every proxy has to beat."""

    name: ClassVar[str] = "params"
    needs: ClassVar[tuple[Statistic[Any], ...]] = (ParameterCount(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Sizes by parameter."""
        return {name: float(n) for name, n in statistics[ParameterCount].items()}

    def of_architecture(
        self, space: Any, architecture: Architecture, num_classes: int, inputs: Any
    ) -> float | None:
        """The space's own count, of the network as it would be trained."""
        return float(space.params(architecture, num_classes, inputs.shape[1]))
