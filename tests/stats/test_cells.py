"""Cells of NAS-Bench-201 that a probe runs node by node: gradients as by autograd in float64."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import spaces
from pynas.stats import (
    ChannelSaliency,
    CodeAgreement,
    Curvature,
    Gradients,
    GradMoments,
    InputGradients,
    OutputGram,
    RunningGradMoments,
    WeightNorms,
    collect,
)
from pynas.stats.nasbench201 import rule, second_order

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
    original = rule.run_nodes

    def count(nodes, *args):  # type: ignore[no-untyped-def]
        runs.append(len(nodes))
        return original(nodes, *args)

    monkeypatch.setattr(rule, "run_nodes", count)
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
    monkeypatch.setattr(rule, "WIDEST", 0)
    by_module = collect(model, x, y, needs=needs, training=True)[GradMoments]
    assert len(fused) == 3
    assert by_node.keys() == by_module.keys()
    for name, moments in by_module.items():
        torch.testing.assert_close(by_node[name].abs, moments.abs, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(by_node[name].square, moments.square, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("text", CELLS)
def test_groups_normalised_by_themselves(text: str, size: int, fused: list[int]) -> None:
    """Sums over groups of what autograd gives for each group alone, in float64; scales and shifts too."""
    model, (x, y) = network(text), images()
    found = collect(
        model, x, y, needs=[GradMoments(("sum", "abs"))], group_size=size, batch_norm="group", training=True
    )[GradMoments]
    assert len(fused) == 3
    exact = SPACE.build(SPACE.parse(text), num_classes=5, prune=True).double().train()
    exact.load_state_dict(model.state_dict())
    rows: dict[str, list[Tensor]] = {name: [] for name in found}
    for part, labels in zip(x.double().split(size), y.split(size), strict=True):
        exact.zero_grad()
        F.cross_entropy(exact(part), labels).backward()
        for name, of_group in rows.items():
            of_group.append(exact.get_parameter(name).grad.clone())
    for name, of_group in rows.items():
        g = torch.stack(of_group)
        scale = 1e-4 * g.norm() + 1e-5
        assert (found[name].sum - g.sum(0)).norm() < scale, name
        assert (found[name].abs - g.abs().sum(0)).norm() < scale, name


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


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the cells that ran node by node in a pass to be differentiated twice."""
    runs: list[int] = []
    original = second_order.run_nodes

    def count(nodes, x):  # type: ignore[no-untyped-def]
        runs.append(len(nodes))
        return original(nodes, x)

    monkeypatch.setattr(second_order, "run_nodes", count)
    return runs


@pytest.mark.parametrize("text", CELLS)
def test_curvature_beside_other_statistics(text: str, twice: list[int], fused: list[int]) -> None:
    """sum w (H g) as by autograd in float64, from the pass that gives gradients, saliency and outputs too."""
    model, (x, y) = network(text), images()
    others = [
        Gradients(parameters="weights"), GradMoments(("abs",), parameters="weights"), ChannelSaliency(),
        OutputGram(parameters="weights"), InputGradients(), CodeAgreement(), WeightNorms(),
    ]  # fmt: skip
    found = collect(model, x, y, needs=[*others, Curvature()], training=True)
    assert len(twice) == 3
    assert not fused
    exact = SPACE.build(SPACE.parse(text), num_classes=5, prune=True).double().train()
    exact.load_state_dict(model.state_dict())
    weights = {f"{n}.weight": m.weight for n, m in exact.named_modules() if isinstance(m, nn.Conv2d)}
    weights["classifier.weight"] = exact.classifier.weight
    gradients = torch.autograd.grad(
        F.cross_entropy(exact(x.double()), y), list(weights.values()), create_graph=True
    )
    along = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
    second = torch.autograd.grad(along, list(weights.values()))
    expected = {n: float((w.detach() * h).sum()) for (n, w), h in zip(weights.items(), second, strict=True)}
    assert found[Curvature].keys() == expected.keys()
    scale = sum(abs(v) for v in expected.values())
    for name, value in expected.items():
        assert found[Curvature][name] == pytest.approx(value, rel=1e-3, abs=1e-4 * scale), name
    alone = collect(model, x, y, needs=others, training=True)
    for statistic in (type(s) for s in others):
        for name, value in alone[statistic].items():
            for a, b in zip(_tensors(found[statistic][name]), _tensors(value), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, float):
        return [torch.tensor(value)]
    parts = [value] if isinstance(value, Tensor) else [getattr(value, f.name) for f in fields(value)]
    return [t for t in parts if isinstance(t, Tensor)]


def test_curvature_of_a_cell_that_is_called_twice(twice: list[int]) -> None:
    """G is the sum over uses: what one use contracts with is not its own gradient."""
    model, (x, y) = network(CELLS[0]), images()
    cells = list(model.cells)
    model.cells = nn.Sequential(cells[0], cells[0], *cells[1:])
    found = collect(model, x, y, needs=[Curvature()], training=True)[Curvature]
    assert len(twice) == 4
    exact = collect(model.double(), x.double(), y, needs=[Curvature()], training=True)[Curvature]
    scale = sum(abs(v) for v in exact.values())
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-4 * scale), name


def test_curvature_takes_a_pass_of_its_own_where_it_must() -> None:
    model, (x, y) = network(CELLS[0]), images()
    alone = collect(model, x, y, needs=[Curvature()], training=True)[Curvature]
    found = collect(model, x, y, needs=[Gradients(), Curvature()], training=True)  # of scales and shifts too
    assert found[Curvature] == alone
    assert found[Gradients].keys() == dict(model.named_parameters()).keys()
    frozen = collect(
        model, x, y, needs=[Gradients(parameters="weights"), Curvature()], batch_norm="frozen", training=True
    )
    assert frozen[Curvature] == alone
    model.stem[0].weight.requires_grad_(False)
    half = collect(model, x, y, needs=[Gradients(parameters="weights"), Curvature()], training=True)
    assert half[Curvature] == alone
    assert "stem.0.weight" not in half[Gradients]
