"""Zen scores against the procedure written out, in float64 and with the same random draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pynas.evaluate import ProxyEvaluator, score
from pynas.nn.nasbench201_cell import run_cell
from pynas.proxies._zen import _FeatureMap
from pynas.spaces.nasbench201.space import NASBench201
from pynas.stats.forwards import FORWARDS
from pynas.stats.nasbench201.rule import forward_cell


def gaussian(model: nn.Module, generator: torch.Generator) -> nn.Module:
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
            if module.bias is not None:
                module.bias.data.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return model


def zen(
    model: nn.Module, feature_map: Callable[[nn.Module, Tensor], Tensor], shape: tuple[int, ...], seed: int
) -> tuple[float, float]:
    """The score with what batch norms track, and with the variances of the first batch."""
    generator = torch.Generator().manual_seed(seed)
    model = gaussian(model, generator)
    x, other = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    first: dict[nn.Module, float] = {}

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        first.setdefault(module, float(args[0].var((0, 2, 3)).mean()))

    for m in norms:
        m.register_forward_pre_hook(hook)
    with torch.no_grad():
        change = (feature_map(model, x) - feature_map(model, x + 0.01 * other)).abs().sum((1, 2, 3)).mean()
    tracked = sum(math.log(math.sqrt(float(m.running_var.mean()))) for m in norms)
    batch = sum(math.log(math.sqrt(value)) for value in first.values())
    return math.log(float(change)) + tracked, math.log(float(change)) + batch


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def images(batch: int, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, size, size, dtype=torch.float64), torch.arange(batch) % 5


@pytest.mark.parametrize("seed", [0, 5])
def test_zen(seed: int) -> None:
    model = network().double()
    x, y = images(6, 9)
    expected = zen(model, lambda m, v: m[:6](v), tuple(x.shape), seed)
    model[1].running_var.fill_(17.0)
    model[1].weight.data.fill_(3.0)
    found = score(model, x, y, ["zen", "zen_zennas"], precision="float64", seed=seed)
    assert found["zen"].value == pytest.approx(expected[0], rel=1e-12)
    assert found["zen_zennas"].value == pytest.approx(expected[1], rel=1e-9)
    assert list(found["zen"].layers) == ["feature map", "1", "4"]


def test_zen_of_nasbench201_counts_dead_batch_norms() -> None:
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
    space = NASBench201(num_cells=1)
    architecture = space.parse(text)
    x, y = images(4, 16)
    evaluator = ProxyEvaluator(space, x, y, ["zen"], precision="float64", seed=2, num_classes=5)
    whole = space.build(architecture, num_classes=5).double()
    expected, _ = zen(whole, lambda m, v: m.lastact(m.cells(m.stem(v))), tuple(x.shape), 2)
    assert evaluator(architecture).scores["zen"] == pytest.approx(expected, rel=1e-9)


class Pooled(nn.Module):
    """A convolution and a way to pool it."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.pool = pool

    def feature_map(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.norm(self.conv(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.pool(self.feature_map(x)))
        return y


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3)),
        lambda x: torch.mean(x, dim=[-1, -2]),
        lambda x: nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
    ],
    ids=["method", "function", "adaptive"],
)
def test_the_feature_map_is_what_is_pooled(pool: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Pooled(pool).double()
    x, y = images(4, 6)
    expected, _ = zen(model, lambda m, v: m.feature_map(v), tuple(x.shape), 0)
    found = score(model, x, y, ["zen"], precision="float64")["zen"]
    assert found.value == pytest.approx(expected, rel=1e-12)


def test_without_batch_norm_or_pooling() -> None:
    """The map is then what the last linear layer reads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 5)).double()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 7, generator=generator).double()
    torch.randn(5, 16, generator=generator)
    x, other = (torch.randn(6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    change = (torch.relu(x @ weight.T) - torch.relu((x + 0.01 * other) @ weight.T)).abs().sum(1).mean()
    found = score(model, x, torch.arange(6) % 5, ["zen", "zen_zennas"], precision="float64")
    assert found["zen"].value == found["zen_zennas"].value == pytest.approx(math.log(change))


def test_batch_norms_that_track_nothing_are_tracked_in_the_copy() -> None:
    torch.manual_seed(0)
    model = network().double()
    x, y = images(6, 9)
    expected = score(model, x, y, ["zen", "zen_zennas"], precision="float64")
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    found = score(model, x, y, ["zen", "zen_zennas"], precision="float64")
    assert {k: v.value for k, v in found.items()} == {k: v.value for k, v in expected.items()}
    assert model[1].running_var is None


def test_dropout_drops_the_same_units_twice() -> None:
    """Else its noise would swamp the perturbation's."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 20), torch.arange(32) % 5

    def value(p: float) -> float:
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 5))
        return score(model, x, y, ["zen"])["zen"].value

    assert value(0.5) == pytest.approx(value(0.0), abs=0.2)


def test_zen_of_tokens_is_a_failure() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.embedding(x).mean(1))
            return y

    found = score(Words(), torch.zeros(6, 3, dtype=torch.long), torch.arange(6) % 5, ["zen"])["zen"]
    assert found.status == "failed"
    assert "inputs: expected floating point" in found.message


def test_grad_norm_zennas() -> None:
    """One norm over all parameters of the Gaussian network."""
    model = network().double()
    x, y = images(7, 9)
    generator = torch.Generator().manual_seed(4)
    copied = gaussian(model, generator)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (7,), generator=generator)
    nn.functional.cross_entropy(copied(noise), labels).backward()
    expected = math.sqrt(sum(float(p.grad.square().sum()) for p in copied.parameters()))
    found = score(model, x, y, ["grad_norm_zennas", "grad_norm"], precision="float64", seed=4)
    assert found["grad_norm_zennas"].value == pytest.approx(expected, rel=1e-12)
    assert set(found["grad_norm_zennas"].layers) == {name for name, _ in model.named_parameters()}
    assert all(p.grad is None for p in model.parameters())


def test_sixteen_samples_at_most() -> None:
    model = network().double()
    x, y = images(20, 9)
    found = score(model, x, y, ["zen"], precision="float64")["zen"].value
    assert found == score(model, x[:16], y[:16], ["zen"], precision="float64")["zen"].value
    assert found != score(model, x[:15], y[:15], ["zen"], precision="float64")["zen"].value


MIXED = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("text", [MIXED, MIXED.replace("nor_conv_3x3~2", "none~2")])
def test_cells_by_whole_nodes_note_what_modules_do(text: str, prune: bool) -> None:
    space = NASBench201(num_cells=1)
    torch.manual_seed(0)
    exact = space.build(space.parse(text), prune=prune).double().train()
    model = copy.deepcopy(exact).float().to(memory_format=torch.channels_last)
    x = torch.randn(6, 3, 16, 16).to(memory_format=torch.channels_last)
    ran: list[bool] = []

    def forward(*args: Tensor) -> Tensor | None:
        y = forward_cell(*args)
        ran.append(y is not None)
        return y

    for _ in range(2):
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch, _FeatureMap() as watch:
            patch.setitem(FORWARDS, run_cell, forward)
            y = model(x)
        with torch.no_grad():
            expected = exact(x.double())
        assert watch.pooled is not None
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    assert ran == [True] * 6
    buffers = dict(model.named_buffers())
    for name, value in exact.named_buffers():
        assert "num_batches" not in name or int(value) == 2
        torch.testing.assert_close(buffers[name].double(), value.double(), rtol=1e-4, atol=1e-5)


def test_cells_that_differ_run_module_by_module() -> None:
    space = NASBench201(num_cells=1)
    model = space.build(space.parse(MIXED), prune=True).train().to(memory_format=torch.channels_last)
    cell = next(m for m in model.modules() if type(m).__name__ == "Cell")
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    assert forward_cell(x, cell) is None  # gradients might be asked for
    with torch.no_grad():
        assert forward_cell(x, cell) is not None
        assert forward_cell(x.contiguous(), cell) is None
        assert forward_cell(x[:1, :, :1, :1].to(memory_format=torch.channels_last), cell) is None
        norm = next(m for m in cell.modules() if isinstance(m, nn.BatchNorm2d))
        norm.eval()
        assert forward_cell(x, cell) is None
