"""Each proxy against a straight transcription of its formula, from gradients by plain backward passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import spaces
from pynas.evaluate import score
from pynas.hardware import macs


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def data(n: int = 12, dtype: torch.dtype = torch.float64, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, size, size, generator=generator, dtype=dtype)
    return x, torch.randint(0, 5, (n,), generator=generator)


def weight_gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(x), y).backward()
    return {
        name: module.weight.grad.clone().numpy().reshape(-1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.grad is not None
    }


def published_zico(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Two gradients in numpy; std signed and population, mean of |.|, no epsilon, sum in the logarithm."""
    model.train()
    gradients = [weight_gradients(model, x, y) for x, y in batches]
    total = 0.0
    for layer in gradients[0]:
        g = np.array([found[layer] for found in gradients])
        std = np.std(g, axis=0)
        keep = np.nonzero(std)[0]
        s = np.sum(np.mean(np.abs(g), axis=0)[keep] / std[keep])
        total += np.log(s) if s != 0 else 0
    return float(total)


@pytest.mark.parametrize("micro_batches", [2, 3])
def test_zico(micro_batches: int) -> None:
    model, (x, y) = network().double(), data()
    expected = published_zico(model, list(zip(x.chunk(micro_batches), y.chunk(micro_batches), strict=True)))
    found = score(network().double(), x, y, ["zico"], precision="float64", micro_batches=micro_batches)[
        "zico"
    ]
    assert found.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
    ],
)
def test_zico_of_nasbench201_equals_the_unpruned_network(text: str) -> None:
    """Dead edges have gradient zero in the published procedure, so leaving them out changes nothing."""
    space = spaces.get("nasbench201")
    architecture = space.parse(text)
    torch.manual_seed(0)
    whole = space.build(architecture).double()
    pruned = space.build(architecture, prune=True).double()
    pruned.load_state_dict(whole.state_dict(), strict=False)
    x, y = data(8, size=16)
    expected = published_zico(whole, list(zip(x.chunk(2), y.chunk(2), strict=True)))
    found = score(pruned, x, y, ["zico"], precision="float64")["zico"].value
    assert found == pytest.approx(expected, rel=1e-6)


def test_zico_layer_without_variation_counts_nothing() -> None:
    model, (x, y) = network().double(), data()
    half = (torch.cat([x[:6], x[:6]]), torch.cat([y[:6], y[:6]]))
    found = score(model, *half, ["zico"], precision="float64")["zico"]
    assert found.value == 0
    assert set(found.layers.values()) == {0.0}


def test_zico_per_sample() -> None:
    """Without batch norm, samples' gradients are those of one sample at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).double()
    x, y = data()
    expected = published_zico(model, [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    found = score(model, x, y, ["zico_per_sample"], precision="float64")["zico_per_sample"].value
    assert found == pytest.approx(expected, rel=1e-9)


def test_proxies_of_the_batch_gradient() -> None:
    model, (x, y) = network().double(), data()
    g = weight_gradients(model.train(), x, y)
    w = {
        name: module.weight.detach().numpy().reshape(-1)
        for name, module in model.named_modules()
        if name in g
    }
    found = score(network().double(), x, y, ["grad_norm", "snip", "plain"], precision="float64")
    assert found["grad_norm"].value == pytest.approx(sum(np.linalg.norm(v) for v in g.values()))
    assert found["snip"].value == pytest.approx(sum(np.abs(w[k] * g[k]).sum() for k in g))
    assert found["plain"].value == pytest.approx(sum((w[k] * g[k]).sum() for k in g), abs=1e-15)


def test_grad_sign_forwards_each_sample_alone() -> None:
    model, (x, y) = network().double().train(), data()
    signs: dict[str, np.ndarray] = {}
    for i in range(len(x)):
        for name, g in weight_gradients(model, x[i : i + 1], y[i : i + 1]).items():
            signs[name] = signs.get(name, 0) + np.sign(np.where(np.abs(g) < 1e-13, 0, g))
    expected = sum(np.abs(s).sum() for s in signs.values())
    found = score(network().double(), x, y, ["grad_sign"], precision="float64")["grad_sign"].value
    assert found == pytest.approx(expected, abs=24)  # signs of zeros but for rounding


def test_params_and_flops() -> None:
    model, (x, y) = network(), data(4, torch.float32)
    found = score(model, x, y, ["params", "flops"])
    assert found["params"].value == sum(p.numel() for p in model.parameters())
    expected = 64 * (3 * 8 * 9 + 8 * 9 + 8 * 6) + 6 * 5
    assert found["flops"].value == expected == macs(model, x)
    space = spaces.get("nasbench201")
    arch = space.from_index(1234)
    assert macs(space.build(arch), torch.randn(2, 3, 32, 32)) == space.macs(arch)


def test_zico_is_dominated_by_layer_sizes() -> None:
    """With two batches the ratio of each weight is at least 1, so S_l >= the number of active weights."""
    model, (x, y) = network().double(), data()
    found = score(model, x, y, ["zico"], precision="float64")["zico"]
    for name, value in found.layers.items():
        assert value >= math.log(model.get_parameter(name).numel()) - 1e-9
