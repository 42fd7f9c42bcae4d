"""Proxies of ReLU codes against 0/1 matrices gathered by hooks, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas.evaluate import ProxyEvaluator, score
from pynas.spaces.nasbench201.space import NASBench201
from pynas.stats import CodeAgreement, collect

LIVE = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
DEAD = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_1x1~1|none~2|"
UNREACHED = "|none~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def codes(model: nn.Module, *inputs: Any) -> np.ndarray:
    """[B, units] of zeros and ones: what goes into every ReLU module, call by call, in train mode."""
    found: list[np.ndarray] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append((args[0].detach().flatten(1) > 0).numpy().astype(np.float64))

    handles = [m.register_forward_pre_hook(hook) for m in model.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad():
        model.train()(*inputs)
    for handle in handles:
        handle.remove()
    return np.concatenate(found, 1)


def published_kernel(x: np.ndarray) -> np.ndarray:
    return x @ x.T + (1 - x) @ (1 - x).T


def network(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    relu = nn.ReLU(inplace)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), relu, nn.Conv2d(5, 7, 3, padding=1), relu,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 5),
    )  # fmt: skip


def images(batch: int, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def labels(batch: int) -> Tensor:
    return torch.arange(batch) % 5


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("batch", [1, 9])
def test_naswot_and_linear_regions(batch: int, inplace: bool) -> None:
    x = images(batch)
    matrix = codes(network(inplace), x)
    found = score(network(inplace), x, labels(batch), ["naswot", "logdet", "linear_regions"])
    expected = np.linalg.slogdet(published_kernel(matrix))[1]
    assert found["naswot"].value == found["logdet"].value == pytest.approx(expected, rel=1e-12)
    assert found["linear_regions"].value == len(np.unique(matrix, axis=0)) == batch


def test_linear_regions_of_a_small_network() -> None:
    """Many samples, few units: patterns come again."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))
    x = torch.randn(200, 2)
    expected = len(np.unique(codes(model, x), axis=0))
    found = score(model, x, labels(200), ["linear_regions", "naswot"])
    assert found["linear_regions"].value == expected
    assert 4 < expected < 40
    assert found["naswot"].status == "failed"
    assert "singular" in found["naswot"].message


def test_equal_samples_are_a_failure_of_naswot() -> None:
    x = images(6)
    x[4] = x[1]
    found = score(network(), x, labels(6), ["naswot", "linear_regions", "snip"])
    assert found["naswot"].status == "failed"
    assert np.isnan(found["naswot"].value)
    assert found["linear_regions"].value == 5
    assert found["snip"].status == "ok"


def test_a_network_without_relu_has_no_codes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.Hardtanh(), nn.Linear(8, 5))
    found = score(model, torch.randn(6, 4), labels(6), ["naswot", "linear_regions", "l2_norm"])
    assert found["naswot"].status == found["linear_regions"].status == "failed"
    assert "no ReLU" in found["naswot"].message
    assert found["l2_norm"].status == "ok"


@pytest.mark.parametrize("text", [LIVE, DEAD, UNREACHED], ids=["live", "dead", "unreached"])
def test_relus_on_dead_edges_count(text: str) -> None:
    """As published: by hooks, over the whole network."""
    space = NASBench201(num_cells=1)
    x = images(6, 16)
    evaluator = ProxyEvaluator(space, x, labels(6), ["naswot", "snip"], seed=3, num_classes=5)
    architecture = space.parse(text)
    torch.manual_seed(3)
    whole = space.build(architecture, num_classes=5)
    expected = np.linalg.slogdet(published_kernel(codes(whole, x)))[1]
    assert evaluator(architecture).scores["naswot"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("text", [LIVE, DEAD, UNREACHED], ids=["live", "dead", "unreached"])
def test_fused_cells_see_the_codes_of_the_modules(text: str) -> None:
    """Beside gradients and without; a node that several convolutions read has as many ReLUs."""
    space = NASBench201(num_cells=1)
    torch.manual_seed(0)
    model = space.build(space.parse(text), num_classes=5, prune=True).to(memory_format=torch.channels_last)
    x = images(6, 16).contiguous(memory_format=torch.channels_last)
    expected = published_kernel(codes(model, x))
    for needs in ((CodeAgreement(),), (CodeAgreement(), *_gradients())):
        found = collect(model, x, labels(6), needs=needs, training=True)[CodeAgreement]["network"]
        assert found.units == expected[0, 0]
        # Units within rounding of zero may fall on either side of it in another order of summation.
        assert np.abs(found.kernel.numpy() - expected).max() <= 1e-4 * found.units


@pytest.mark.parametrize("text", [DEAD, UNREACHED], ids=["dead", "unreached"])
def test_fused_cells_of_whole_networks(text: str) -> None:
    """Without gradients, "none" edges and nodes that nothing reaches run whole nodes at a time too."""
    space = NASBench201(num_cells=1)
    torch.manual_seed(0)
    model = space.build(space.parse(text), num_classes=5).to(memory_format=torch.channels_last)
    x = images(6, 16).contiguous(memory_format=torch.channels_last)
    expected = published_kernel(codes(model, x))
    by_module: list[int] = []
    for cell in (m for m in model.modules() if hasattr(m, "by_module")):
        cell.by_module = by_module.append
    found = collect(model, x, labels(6), needs=[CodeAgreement()], training=True)[CodeAgreement]["network"]
    assert not by_module
    assert found.units == expected[0, 0]
    assert np.abs(found.kernel.numpy() - expected).max() <= 1e-4 * found.units


def _gradients() -> tuple[Any, ...]:
    from pynas.stats import Gradients

    return (Gradients(parameters="weights"),)


@pytest.mark.parametrize(
    "relu",
    [torch.relu, F.relu, Tensor.relu, torch.relu_, F.relu6, nn.ReLU6(), nn.ReLU6(inplace=True)],
    ids=["torch", "functional", "method", "in place", "relu6", "ReLU6", "ReLU6 in place"],
)
def test_relu_in_any_form(relu: Callable[[Tensor], Tensor]) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            return relu(self.linear(x) * 1)

    torch.manual_seed(0)
    model = Functional()
    x = torch.randn(7, 4)
    bits = (model.linear(x) > 0).double().numpy()
    found = collect(model, x, None, needs=[CodeAgreement()])[CodeAgreement]["network"]
    assert found.units == 12
    assert np.array_equal(found.kernel.numpy(), published_kernel(bits))
