"""Cells of NAS-Bench-201 that a probe runs node by node: gradients as by autograd in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import spaces
from pynas.spaces import _nasbench201_probe
from pynas.stats import Gradients, GradMoments, RunningGradMoments, collect

SPACE = spaces.get("nasbench201", num_cells=1)
CELLS = [
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    "|skip_connect~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|skip_connect~1|avg_pool_3x3~2|",
    "|avg_pool_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|",
    "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
    "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
]


def network(text: str) -> nn.Module:
    torch.manual_seed(0)
    model = SPACE.build(SPACE.parse(text), num_classes=5, prune=True).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.arange(6) % 5


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the cells that ran node by node."""
    runs: list[int] = []
    original = _nasbench201_probe.run_nodes

    def count(nodes, x):  # type: ignore[no-untyped-def]
        runs.append(len(nodes))
        return original(nodes, x)

    monkeypatch.setattr(_nasbench201_probe, "run_nodes", count)
    return runs


@pytest.mark.parametrize("text", CELLS)
def test_gradients(text: str, fused: list[int]) -> None:
    model, (x, y) = network(text), images()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = collect(model, x, y, needs=[Gradients(), GradMoments(("sum", "abs"))], training=True)
    assert len(fused) == 3
    exact = SPACE.build(SPACE.parse(text), num_classes=5, prune=True).double().train()
    exact.load_state_dict(before)
    F.cross_entropy(exact(x.double()), y).backward()
    assert found.parameters.keys() == dict(model.named_parameters()).keys()  # scales and shifts too
    for name in found.parameters:
        expected = exact.get_parameter(name).grad
        error = 1e-5 * expected.norm() + 1e-6
        assert (found[Gradients][name] - expected).norm() < error, name
        assert (found[GradMoments][name].sum - expected).norm() < error, name
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_per_sample_moments_are_those_of_the_modules(
    fused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, y) = network(CELLS[0]), images()
    needs = [GradMoments(("abs", "square"), parameters="weights")]
    by_node = collect(model, x, y, needs=needs, training=True)[GradMoments]
    assert len(fused) == 3
    monkeypatch.setattr(_nasbench201_probe, "WIDEST", 0)
    by_module = collect(model, x, y, needs=needs, training=True)[GradMoments]
    assert len(fused) == 3
    assert by_node.keys() == by_module.keys()
    for name, moments in by_module.items():
        torch.testing.assert_close(by_node[name].abs, moments.abs, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(by_node[name].square, moments.square, rtol=1e-3, atol=1e-6)


def test_same_bits_each_time(fused: list[int]) -> None:
    model, (x, y) = network(CELLS[0]), images()
    needs = [RunningGradMoments(parameters="weights")]
    first, second = (
        collect(model, x, y, needs=needs, micro_batches=2, training=True)[RunningGradMoments]
        for _ in range(2)
    )
    assert len(fused) == 12
    assert all(torch.equal(first[name].m2, second[name].m2) for name in first)


def test_whatever_differs_runs_module_by_module(fused: list[int]) -> None:
    model, (x, y) = network(CELLS[0]), images()
    weights = [Gradients(parameters="weights")]
    collect(model, x, y, needs=weights, batch_norm="frozen")
    collect(model.double(), x.double(), y, needs=weights)
    model.float()
    seen: list[int] = []
    hooks = [
        m.register_forward_hook(lambda *_: seen.append(0)) for m in model.modules() if type(m) is nn.ReLU
    ]
    collect(model, x, y, needs=weights)
    assert not fused
    assert len(seen) == len(hooks)
