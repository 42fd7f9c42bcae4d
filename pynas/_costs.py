"""What an architecture costs, and upper bounds on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pynas._errors import UserError
from pynas.architecture import Architecture

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace


class Costs:
    """Costs of a space's architectures by name, and whether they keep within bounds.

    ``params`` is the number of parameters; ``flops`` counts multiply-adds once, as the tables of
    NAS-Bench-201 do.

    Args:
        space: Space of the architectures.
        bounds: Largest allowed value by name of the cost; UserError for an unknown name or a bound below
            zero.
        num_classes: Classes of the task.
        image_size: Height and width of an image in pixels.
        in_channels: Channels of an image.
    """

    def __init__(
        self,
        space: SearchSpace,
        bounds: Mapping[str, float] | None = None,
        *,
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
    ) -> None:
        self._space = space
        self._functions: dict[str, Callable[[Architecture], int]] = {
            "params": lambda arch: space.params(arch, num_classes, in_channels),
            "flops": lambda arch: space.macs(arch, num_classes, image_size, in_channels),
        }
        self.bounds = {name: float(bound) for name, bound in (bounds or {}).items()}
        for name, bound in self.bounds.items():
            if name not in self._functions:
                raise UserError(f"constraint {name!r}: unknown; known: {', '.join(self._functions)}")
            if math.isnan(bound) or bound < 0:
                raise UserError(f"constraint {name!r}: expected an upper bound of at least 0, got {bound}")
        self._smallest: dict[str, int] = {}

    def __call__(self, architecture: Architecture) -> dict[str, float]:
        """All costs by name."""
        return {name: float(function(architecture)) for name, function in self._functions.items()}

    def feasible(self, architecture: Architecture) -> bool:
        """Whether every bounded cost is at most its bound."""
        for name, bound in self.bounds.items():
            cost = self._functions[name](architecture)
            self._smallest[name] = min(cost, self._smallest.get(name, cost))
            if cost > bound:
                return False
        return True

    def explain(self) -> str:
        """The bounds, each with the smallest cost that :meth:`feasible` has met."""
        return ", ".join(
            f"{name} <= {bound:,.0f} (smallest met: {self._smallest[name]:,})"
            if name in self._smallest
            else f"{name} <= {bound:,.0f}"
            for name, bound in self.bounds.items()
        )
