"""GraSP: gradient signal preservation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pynas.proxies._base import Probe, ProbeCall, Proxy
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.curvature import curvature


@dataclass(frozen=True)
class Curvature(Statistic[float]):
    """sum_w w (H g)_w by weight."""


@dataclass(frozen=True, slots=True)
class CurvatureProbe(Probe):
    """A forward, a backward, and a backward of that along the gradient: :func:`pynas.stats.curvature`."""

    def run(self, call: ProbeCall) -> Statistics:
        """Both backward passes, of one batch."""
        found = curvature(call.model, call.inputs, call.targets, call.loss_fn, training=True, seed=call.seed)
        return call.statistics({Curvature: found}, batch=1)


@register
class Grasp(Proxy):
    """sum_w -w (H g)_w, g = dL/dw, H the Hessian, over weights of convolutions and linear layers.

    Gradient and Hessian are of the same batch, at temperature 1; the sign is the proxy's, not that of the
    pruning criterion. Wang, Zhang, Grosse: Picking Winning Tickets Before Training by Preserving Gradient
    Flow, ICLR 2020; as a proxy: Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "grasp"
    probe: ClassVar[Probe] = CurvatureProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]] = (Curvature(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """-w (H g) summed over each weight."""
        return {name: -value for name, value in statistics[Curvature].items()}
