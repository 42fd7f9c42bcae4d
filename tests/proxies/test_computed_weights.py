"""A weight that its layer computes counts once, as the weight of the network without the parametrization."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import pynas
from pynas import proxies

pytestmark = pytest.mark.usefixtures("one_thread")
OVER_WEIGHTS = sorted(name for name in proxies.names() if proxies.get(name).over_weights)
Wrap = Callable[[nn.Module], nn.Module]


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, columns) / 9), nn.Parameter(torch.randn(rows, 2) / 9)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def low_rank(layer: nn.Module) -> nn.Module:
    rows = layer.weight.shape[0]
    return parametrize.register_parametrization(layer, "weight", LowRank(rows, layer.weight.numel() // rows))


class Double(nn.Module):
    def forward(self, bias: Tensor) -> Tensor:
        return 2 * bias


def weight_and_bias(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "bias", Double())
    return parametrizations.weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", 0.3)


def pruned_twice(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(pruned(layer), "weight", 0.2)


WAYS: dict[str, Wrap] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "low_rank": low_rank,
    "weight_and_bias": weight_and_bias,
    "pruned": pruned,
    "pruned_twice": pruned_twice,
    "former spectral_norm": nn.utils.spectral_norm,
}


def network(wrap: Wrap) -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.Linear(8 * 16, 10)]
    torch.manual_seed(2)
    conv, linear = (wrap(layer) for layer in layers)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear, nn.ReLU(), nn.Linear(10, 5)).double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 6, 6, generator=generator), torch.arange(8) % 5


def plain(wrap: Wrap) -> nn.Sequential:
    """The same function of weights that are parameters."""
    twin, computing = network(lambda layer: layer), network(wrap).train()
    with torch.no_grad():
        for module in (computing[0], computing[3]):  # as the next forward in train mode computes them
            for hook in module._forward_pre_hooks.values():
                hook(module, ())
        for ours, theirs in zip(twin, computing, strict=True):
            if isinstance(ours, nn.Conv2d | nn.Linear):
                ours.weight.copy_(theirs.weight)
                ours.bias.copy_(theirs.bias)
    return twin


def state(model: nn.Module) -> list[Any]:
    tensors = model.state_dict(keep_vars=True)
    hooks = [list(m._forward_pre_hooks.items()) for m in model.modules()]
    kinds = [type(m) for m in model.modules()]
    keys = [list(vars(m)) for m in model.modules()]
    return [[(k, id(t), t._version) for k, t in tensors.items()], hooks, kinds, keys]


@pytest.mark.parametrize("way", WAYS)
def test_counts_as_the_weight_that_it_is(way: str) -> None:
    model = network(WAYS[way])
    before, values = state(model), copy.deepcopy(model.state_dict())
    found = pynas.score(model, *data(), OVER_WEIGHTS, precision="float64")
    assert state(model) == before
    assert all(torch.equal(values[k], v) for k, v in model.state_dict().items())
    expected = pynas.score(plain(WAYS[way]), *data(), OVER_WEIGHTS, precision="float64")
    for name in OVER_WEIGHTS:
        score = found[name]
        assert (score.status, score.coverage) == ("ok", 1), (name, score.message)
        assert set(score.layers) == {"0.weight", "3.weight", "5.weight"}, name
        assert score.layers == pytest.approx(expected[name].layers, rel=1e-6), name


def test_what_is_no_sum_over_weights_sees_the_model_as_it_is() -> None:
    model = network(parametrizations.weight_norm)
    found = pynas.score(model, *data(), ["params", "snip", "naswot", "jacob_cov"], precision="float64")
    assert found["params"].value == sum(p.numel() for p in model.parameters())
    twin = pynas.score(
        plain(parametrizations.weight_norm), *data(), ["naswot", "jacob_cov"], precision="float64"
    )
    for name in twin:
        assert found[name].value == pytest.approx(twin[name].value, rel=1e-6)


def test_frozen_parameters_are_left_out() -> None:
    model = network(parametrizations.weight_norm)
    for p in model[3].parameters():
        p.requires_grad_(False)
    assert set(pynas.score(model, *data(), ["snip"])["snip"].layers) == {"0.weight", "5.weight"}


@pytest.mark.parametrize("way", ["weight_and_bias", "former spectral_norm", "pruned"])
def test_a_failure_leaves_the_model_as_it_was(way: str) -> None:
    model = network(WAYS[way])
    before = state(model)
    model[4].forward = None  # type: ignore[assignment]
    assert pynas.score(model, *data(), ["snip"])["snip"].status == "failed"
    del model[4].forward
    assert state(model) == before
    assert model(data()[0].double()).shape == (8, 5)


def test_the_weight_norm_of_before() -> None:
    with pytest.warns(FutureWarning):
        model = network(nn.utils.weight_norm)
    found = pynas.score(model, *data(), ["snip", "l2_norm"], precision="float64")
    with pytest.warns(FutureWarning):
        twin = plain(nn.utils.weight_norm)
    expected = pynas.score(twin, *data(), ["snip", "l2_norm"], precision="float64")
    for name in expected:
        assert found[name].layers == pytest.approx(expected[name].layers, rel=1e-6)
