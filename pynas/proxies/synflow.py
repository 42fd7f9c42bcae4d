"""Synaptic flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas.proxies._base import Probe, ProbeCall, Proxy
from pynas.proxies._log_scale import LogScale
from pynas.proxies._registry import register
from pynas.stats import Statistic, Statistics
from pynas.stats.data import call_model, cut, leaves, writable
from pynas.stats.state import preserved, seed_generators
from pynas.stats.weights import check_real, found_weights


@dataclass(frozen=True)
class Flow(Statistic[float]):
    """ln sum_w |w dR/dw| by weight, R the sum of outputs of the network of absolute weights on ones."""


@dataclass(frozen=True, slots=True)
class FlowProbe(Probe):
    """One image of ones through the network of absolute weights, in float64, and back.

    Attributes:
        batch_norm: Run batch norms, by the statistics of this one image; otherwise they pass their input on.
    """

    batch_norm: bool = False

    def run(self, call: ProbeCall) -> Statistics:
        """Forward and backward; values out of float64's range carry a scale."""
        model = call.model
        check_real(model, "synaptic flow")
        weights = found_weights(model, call.inputs)
        absolute = {name: t.detach().double().abs() for name, t in model.named_parameters()}
        absolute |= {
            name: t.detach().double().abs() if t.is_floating_point() else t
            for name, t in model.named_buffers()
        }
        wanted = {name: absolute[name].requires_grad_() for name in weights.names}
        scales = LogScale(batch_norm=self.batch_norm)
        with preserved(model), torch.inference_mode(False), torch.enable_grad():
            model.train()
            seed_generators(call.seed)
            inputs = _ones(writable(cut(call.inputs, 0, 1)))
            try:
                with scales:
                    outputs = call_model(
                        lambda *a, **k: torch.func.functional_call(model, absolute, a, k), inputs
                    )
            except RuntimeError as error:
                raise UserError(
                    f"model: it does not run in float64 on one sample of ones, as synaptic flow wants it "
                    f"({error})"
                ) from error
        output = next(t for t in leaves(outputs) if t.is_floating_point())
        flows = {}
        if output.requires_grad:
            found = torch.autograd.grad(output.sum(), list(wanted.values()), allow_unused=True)
            for (name, weight), gradient in zip(wanted.items(), found, strict=True):
                flow = 0.0 if gradient is None else float((weight.detach() * gradient).abs().sum())
                if flow != 0:  # NaN stays
                    flows[name] = math.log(flow) + scales.scale(output)
        return call.statistics({Flow: flows}, batch=1, found=weights)


class _Synflow(Proxy):
    """What the variants share."""

    needs: ClassVar[tuple[Statistic[Any], ...]] = (Flow(),)
    over_weights: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Logarithms, by weight."""
        return dict(statistics[Flow])

    def score(self, statistics: Statistics) -> float:
        """Logarithm of the sum over layers; minus infinity, which is no score, where nothing flows."""
        flows = list(statistics[Flow].values())
        return float(torch.logsumexp(torch.tensor(flows, dtype=torch.float64), 0)) if flows else -math.inf


@register
class Synflow(_Synflow):
    """ln sum_w |w dR/dw|, R the sum of logits of an image of ones under absolute weights, without batch norm.

    The logarithm of the published value, which overflows on deep networks; the order is the same. All
    parameters are made positive; the sum is over weights, what multiplies its input. Tanaka, Kunin,
    Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic flow,
    NeurIPS 2020; as a proxy: Abdelfattah et al., ICLR 2021.
    """

    name: ClassVar[str] = "synflow"
    probe: ClassVar[Probe] = FlowProbe()


@register
class SynflowBN(_Synflow):
    """As ``synflow``, with batch norms, normalising by the statistics of the one image.

    So the code of the zero-shot survey does it: Li et al., IEEE TPAMI 2024.
    """

    name: ClassVar[str] = "synflow_bn"
    probe: ClassVar[Probe] = FlowProbe(batch_norm=True)


def _ones(sample: Any) -> Any:
    """Ones in float64 in the place of a sample; integers (tokens) stay."""
    if isinstance(sample, Tensor):
        return torch.ones_like(sample, dtype=torch.float64) if sample.is_floating_point() else sample
    if isinstance(sample, dict):
        return {k: _ones(v) for k, v in sample.items()}
    return type(sample)(map(_ones, sample)) if isinstance(sample, tuple | list) else sample
