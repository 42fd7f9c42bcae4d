"""Candidates that somebody changes after they were fused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pynas

CHANNELS = 8
NAMES = ("skip_connect", "sep_conv_3x3", "max_pool_3x3")


class Edge(nn.Module):
    def __init__(self, rate: float = 0.3) -> None:
        super().__init__()
        skip, *others = (pynas.nn.candidate(name, "darts", CHANNELS) for name in NAMES)
        self._ops = nn.ModuleList([nn.Sequential(skip, nn.Dropout(rate)), *others])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))


class Own(Edge):
    """A forward of its own, which is kept."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.tanh(super().forward(x, weights))


class Network(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.edge, self.head = kind(), nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.head(self.edge(x, weights).mean((2, 3)))


def put_in_place(edge: nn.Module) -> None:
    edge._ops[1] = nn.Identity()


def put_deep_inside(edge: nn.Module) -> None:
    layers = next(m for m in edge._ops[1].modules() if isinstance(m, nn.Sequential))
    torch.manual_seed(3)
    layers[1] = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS, bias=False)


def hook(edge: nn.Module) -> None:
    edge._ops[1].register_forward_hook(lambda module, inputs, y: 2 * y)


def hook_deep_inside(edge: nn.Module) -> None:
    norm = next(m for m in edge._ops[1].modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


def parametrise(edge: nn.Module) -> None:
    conv = next(m for m in edge._ops[1].modules() if isinstance(m, nn.Conv2d))
    torch.manual_seed(3)
    nn.utils.parametrizations.spectral_norm(conv)


def replace_all(edge: nn.Module) -> None:
    for k in range(len(edge._ops)):
        edge._ops[k] = nn.Identity()


CHANGES = [put_in_place, put_deep_inside, hook, hook_deep_inside, parametrise, replace_all]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [Edge, Own])
def test_what_changes_later_counts(kind: type[nn.Module], change: Callable[[nn.Module], None]) -> None:
    torch.manual_seed(0)
    loop = Network(kind)
    fused = copy.deepcopy(loop)
    report = pynas.nn.replace_mixed_ops(fused)
    assert len(report.swapped) == 1
    x, weights = torch.randn(4, CHANNELS, 6, 6), torch.tensor([0.6, 0.2, 0.2])
    for network in (loop, fused):
        network.eval()(x, weights)
        change(network.edge)
        network.eval()
    torch.testing.assert_close(fused(x, weights), loop(x, weights), rtol=1e-5, atol=1e-6)
    again = copy.deepcopy(fused)
    torch.testing.assert_close(again(x, weights), loop(x, weights), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Edge, Own])
def test_a_hook_that_goes_leaves_the_operator(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = Network(kind)
    pynas.nn.replace_mixed_ops(network)
    network.eval()
    x, weights = torch.randn(4, CHANNELS, 6, 6), torch.tensor([0.6, 0.2, 0.2])
    calls: list[int] = []
    expected = network(x, weights)
    handle = network.edge._ops[1].register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(network(x, weights), expected, rtol=1e-5, atol=1e-6)
    assert calls == [1]
    handle.remove()
    assert torch.equal(network(x, weights), expected)
    assert calls == [1]


@pytest.mark.parametrize("start", [0.0, 0.3])
@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_a_schedule_of_dropout(start: float, rate: float) -> None:
    torch.manual_seed(0)
    loop = Network(lambda: Edge(start))  # type: ignore[arg-type]
    fused = copy.deepcopy(loop)
    pynas.nn.replace_mixed_ops(fused)
    x, weights = torch.randn(4, CHANNELS, 6, 6), torch.tensor([0.6, 0.2, 0.2])
    found = []
    for network in (loop, fused):
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
        torch.manual_seed(5)
        found.append(network(x, weights))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_mixture_made_by_itself() -> None:
    torch.manual_seed(0)
    mixture = pynas.nn.MixedOp(CHANNELS, NAMES).eval()
    x, weights = torch.randn(2, CHANNELS, 6, 6), torch.tensor([0.6, 0.2, 0.2])
    mixture._ops[2] = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2)
    expected = sum(w * op(x) for w, op in zip(weights, mixture._ops, strict=True))
    torch.testing.assert_close(mixture(x, weights), expected, rtol=1e-5, atol=1e-6)
    assert set(mixture.plain) == {2}
