"""Statistics of any model, against a loop over single samples in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas.stats import GradGram, Gradients, GradMoments, GradNorms, collect
from tests.stats import folded_models  # adds to MODELS
from tests.stats.any_models import CLASSES, MODELS

assert folded_models
STATISTICS = [GradMoments(("sum", "abs", "square", "sign", "centered")), GradNorms(), GradGram(), Gradients()]


def sample_gradients(network: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """g_b of every parameter by plain autograd, one sample at a time, [B, *shape]."""
    rows: dict[str, list[Tensor]] = {name: [] for name, _ in network.named_parameters()}
    for b in range(len(x)):
        loss = F.cross_entropy(network(x[b : b + 1]), targets[b : b + 1]) / len(x)
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        for (name, p), gradient in zip(network.named_parameters(), found, strict=True):
            rows[name].append(torch.zeros_like(p) if gradient is None else gradient)
    return {name: torch.stack(values) for name, values in rows.items()}


# Also where the batch has the size of another dimension: tokens 6, channels 8, frames 5, windows 4.
@pytest.mark.parametrize("batch", [4, 6, 8, 5])
@pytest.mark.parametrize("name", MODELS)
def test_as_a_loop_over_samples(name: str, batch: int) -> None:
    torch.manual_seed(0)
    kind, make = MODELS[name]
    network, x, targets = kind().double().eval(), make(batch), torch.arange(batch) % CLASSES
    found = collect(network, x, targets, needs=STATISTICS, batch_norm="frozen")
    for key, rows in sample_gradients(network, x, targets).items():
        if key not in found[GradNorms]:
            assert not rows.any(), f"{key} is missing"
            continue
        moments, flat = found[GradMoments][key], rows.flatten(1)
        close(moments.sum, rows.sum(0), key)
        close(moments.abs, rows.abs().sum(0), key)
        close(moments.square, rows.square().sum(0), key)
        close(moments.centered, (rows - rows.mean(0)).square().sum(0), key)
        close(found[GradNorms][key], flat.square().sum(1), key)
        close(found[GradGram][key], flat @ flat.T, key)
        close(found[Gradients][key], rows.sum(0), key)


def close(found: Tensor | None, expected: Tensor, key: str) -> None:
    assert found is not None
    assert found.shape == expected.shape, key
    scale = expected.abs().max().clamp_min(1e-12)
    assert float((found - expected).abs().max() / scale) < 1e-9, key
