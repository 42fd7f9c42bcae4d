"""Condition number of the neural tangent kernel as published: a backward pass per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas.proxies._base import Probe, ProbeCall, Proxy
from pynas.proxies._registry import register
from pynas.proxies.ntk_condition import condition
from pynas.stats import Statistic, Statistics
from pynas.stats.data import call_model, leaves, writable
from pynas.stats.per_sample import as_real, widen
from pynas.stats.state import preserved, seed_generators

LARGEST_BYTES = 4 << 30


@dataclass(frozen=True)
class TangentKernel(Statistic[Tensor]):
    """G_ij = <d(sum of y_i)/dw, d(sum of y_j)/dw> over all parameters called ``weight``, as one value."""


@dataclass(frozen=True)
class TangentProbe(Probe):
    """One forward pass in train mode and a backward pass of each sample's outputs; holds B gradients."""

    def run(self, call: ProbeCall) -> Statistics:
        """Gather the rows and multiply them."""
        model = call.model
        weights = [p for name, p in model.named_parameters() if name.endswith("weight") and p.requires_grad]
        if not weights:
            raise UserError(
                "model: ntk_condition_tenas takes gradients of the trainable parameters that are called "
                "'weight', and there is none; take ntk_condition"
            )
        with preserved(model), torch.inference_mode(False), torch.enable_grad():
            model.train()
            seed_generators(call.seed)
            found = leaves(call_model(model, writable(call.inputs)))
            outputs = next(t for t in found if t.is_floating_point())
            size = len(outputs) * sum(p.numel() for p in weights) * 4
            if size > LARGEST_BYTES:
                raise UserError(
                    f"model: ntk_condition_tenas holds every sample's gradient, here {size / 2**30:.1f} GiB; "
                    "pass fewer samples or take ntk_condition"
                )
            rows = torch.stack([_gradient(y, weights) for y in outputs])
        return call.statistics({TangentKernel: {"network": rows @ rows.T}}, batch=len(rows))


@register
class NTKConditionTENAS(Proxy):
    """lambda_max / lambda_min of G = R R^T as published, a backward pass per sample: slow; less is better.

    Row i is the gradient of the sum of sample i's logits with respect to all weights, those of norms too, in
    train mode: batch norm carries it through the activations of all samples. ``ntk_condition`` takes one
    pass for all rows, which are others where there is batch norm.

    Chen, Gong, Wang: Neural Architecture Search on ImageNet in Four GPU Hours (TE-NAS), ICLR 2021.
    """

    name: ClassVar[str] = "ntk_condition_tenas"
    higher_is_better: ClassVar[bool] = False
    probe: ClassVar[Probe] = TangentProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]] = (TangentKernel(),)

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """None: the eigenvalues are of the sum."""
        return {}

    def score(self, statistics: Statistics) -> float:
        """Ratio of the extreme eigenvalues, in float64."""
        kernel = statistics[TangentKernel]["network"]
        return condition(kernel, kernel.dtype)


def _gradient(y: Tensor, weights: Sequence[Tensor]) -> Tensor:
    if not y.requires_grad:
        raise ArithmeticError("the outputs do not depend on any weight")
    found = torch.autograd.grad(y.sum(), weights, retain_graph=True, allow_unused=True)
    full = (torch.zeros_like(p) if g is None else g for p, g in zip(weights, found, strict=True))
    return torch.cat([as_real(widen(g)).flatten() for g in full])
