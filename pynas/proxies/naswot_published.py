"""NASWOT as its authors' code runs on networks whose blocks have ReLU in their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pynas.ops import code_agreement_update
from pynas.proxies._base import Probe, ProbeCall, Proxy
from pynas.proxies._registry import register
from pynas.proxies.naswot import log_determinant
from pynas.stats import Statistic, Statistics
from pynas.stats.data import call_model, writable
from pynas.stats.state import preserved, seed_generators


@dataclass(frozen=True)
class NamedAgreement(Statistic[Tensor]):
    """K of the inputs of all modules whose class has "ReLU" in its name, int64 [B, B], as one value."""


@dataclass(frozen=True)
class NamedProbe(Probe):
    """One forward pass in train mode that looks at every call of such a module."""

    def run(self, call: ProbeCall) -> Statistics:
        """Sum over the calls of modules."""
        found: list[Tensor] = []

        def add(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0].detach()
            if not found:
                found.append(torch.zeros(len(x), len(x), dtype=torch.int64, device=x.device))
            code_agreement_update(x, found[0], 1)

        with preserved(call.model), torch.no_grad():
            call.model.train()
            seed_generators(call.seed)
            hooked = [module for module in call.model.modules() if "ReLU" in str(type(module))]
            handles = [_hooked(module, add) for module in hooked]
            try:
                call_model(call.model, writable(call.inputs))
            finally:
                for remove in handles:
                    remove()
        values = {"network": found[0]} if found else {}
        return call.statistics({NamedAgreement: values}, batch=len(found[0]) if found else 0)


def _hooked(module: nn.Module, hook: Callable[[nn.Module, tuple[Any, ...]], None]) -> Callable[[], None]:
    """Register a hook before the forward, where a ReLU in place has not yet overwritten its input."""
    return module.register_forward_pre_hook(hook).remove


@register
class NaswotPublished(Proxy):
    """naswot whose K also counts the inputs of blocks called ReLU-something, as the authors' hook does.

    Their code hooks every module with "ReLU" in the name of its class. In NAS-Bench-201 and
    TransNAS-Bench-101 that is each ``ReLUConvBN`` too, whose input is that of the ReLU in it: convolutions of
    cells count twice, ReLUs outside such blocks once. ``naswot`` counts each call of a ReLU once, and differs
    where there are such blocks. Functional ReLUs, which no module calls, are not counted here.

    Mellor, Turner, Storkey, Crowley: Neural Architecture Search without Training, ICML 2021.
    """

    name: ClassVar[str] = "naswot_published"
    probe: ClassVar[Probe] = NamedProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]] = (NamedAgreement(),)
    whole_network: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Empty: the determinant of a sum is no sum over layers."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """The score, by a Cholesky factorisation in float64."""
        found = statistics[NamedAgreement]
        if not found:
            raise ValueError("no module of the network has ReLU in the name of its class")
        return log_determinant(found["network"])
