"""Norm of the gradient as in Zen-NAS: of a Gaussian network on noise with random labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from pynas._errors import UserError
from pynas.proxies._base import Probe, ProbeCall, Proxy
from pynas.proxies._registry import register
from pynas.proxies._zen import gaussian_copy, normal_like
from pynas.stats import Statistic, Statistics
from pynas.stats.data import call_model, leaves
from pynas.stats.state import generators_kept, seed_generators


@dataclass(frozen=True)
class NoiseGradientNorms(Statistic[float]):
    """||dL/dp||_2 by parameter, L the mean cross-entropy of random labels."""


@dataclass(frozen=True)
class NoiseGradientProbe(Probe):
    """A forward and backward pass in train mode of a copy with weights from N(0, 1), inputs from N(0, 1).

    Labels are uniform over the outputs of axis 1.
    """

    def run(self, call: ProbeCall) -> Statistics:
        """Draw, forward, differentiate."""
        generator = torch.Generator().manual_seed(call.seed)
        model = gaussian_copy(call.model, generator)
        x = normal_like(call.inputs, generator)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with generators_kept(), torch.inference_mode(False), torch.enable_grad():
            seed_generators(call.seed)
            logits = next(t for t in leaves(call_model(model, x)) if t.is_floating_point())
            if logits.dim() < 2:
                raise UserError(f"model: expected logits [B, classes, ...], got shape {tuple(logits.shape)}")
            shape = (logits.shape[0], *logits.shape[2:])
            labels = torch.randint(logits.shape[1], shape, generator=generator).to(logits.device)
            loss = F.cross_entropy(logits, labels)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        norms = {
            name: float(g.double().norm())
            for name, g in zip(parameters, gradients, strict=True)
            if g is not None
        }
        return call.statistics({NoiseGradientNorms: norms}, len(logits), [float(loss.detach())])


@register
class GradNormZenNAS(Proxy):
    """||dL/dp||_2 over all parameters p at once, of a N(0, 1) network, N(0, 1) inputs and random labels.

    The gradient norm of the Zen-NAS code (and of ZiCo's) differs from ``grad_norm``: it is one norm over all
    parameters, including biases and norm layers, of a copy of the network with weights drawn from N(0, 1).

    Lin et al.: Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition, ICCV 2021.
    """

    name: ClassVar[str] = "grad_norm_zennas"
    probe: ClassVar[Probe] = NoiseGradientProbe()
    needs: ClassVar[tuple[Statistic[Any], ...]] = (NoiseGradientNorms(),)
    needs_floating_inputs: ClassVar[bool] = True

    def layers(self, statistics: Statistics) -> dict[str, float]:
        """Norms by parameter; the score is the root of the sum of their squares."""
        return dict(statistics[NoiseGradientNorms])

    def score(self, statistics: Statistics) -> float:
        """The root of the sum of squares."""
        return math.hypot(*self.layers(statistics).values())
