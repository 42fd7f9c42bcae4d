"""Probing in channels_last, where fused kernels and shared activations stand in: gradients as by autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import ops
from pynas.stats import Gradients, GradMoments, collect
from pynas.stats._conv_products import Conv2dProduct, Geometry
from pynas.stats._fast import Memo


class Cell(nn.Module):
    """Two convolutions, a pool and a skip read one node, each through a ReLU of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.a = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.b = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16, affine=False))
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.down = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        y = self.pool(x)
        y += self.a(x)  # must not change what the next pool of x gives
        y = y + self.b(x) + self.pool(x) + F.relu(x)
        x = F.relu_(y.mul(2))
        return self.head((self.down(F.relu(x)) + F.relu(self.down(y))).mean((2, 3)))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("parameters", ["all", "weights"])
def test_gradients(parameters: str, groups: int) -> None:
    torch.manual_seed(0)
    model = Cell().to(memory_format=torch.channels_last)
    nn.init.normal_(model.norm.weight)
    x = torch.randn(8, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    y = torch.arange(8) % 5
    mode = "batch" if groups == 1 else "group"
    found = collect(
        model, x, y, needs=[Gradients(parameters=parameters), GradMoments(("sum",), parameters=parameters)],
        batch_norm=mode, group_size=8 // groups,
    )  # fmt: skip
    exact = Cell().double()
    exact.load_state_dict(model.state_dict())
    sum(
        F.cross_entropy(exact(a), b) for a, b in zip(x.double().chunk(groups), y.chunk(groups), strict=True)
    ).backward()
    for name, g in found[Gradients].items():
        expected = exact.get_parameter(name).grad
        error = 1e-5 * expected.norm() + 1e-6
        assert (g - expected).norm() < error, name
        assert (found[GradMoments][name].sum - expected).norm() < error, name


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("group_size", [1, 2])
def test_samples_formed_by_the_3x3_kernel(group_size: int, relu: bool) -> None:
    torch.manual_seed(0)
    x, d = (
        torch.randn(6, c, 15, 16).contiguous(memory_format=torch.channels_last) for c in (16, 24)
    )  # 16 tiles, some of them half outside the image
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1)
    product = Conv2dProduct(d, x, geometry, torch.Size((24, 16, 3, 3)), relu=relu)
    found = product.moments(ops.MOMENTS, group_size, bias=True)
    assert product._formed
    a, g = (x.relu() if relu else x).double(), d.double()
    patches = F.unfold(a, 3, padding=1).view(6, 144, 240)
    rows = torch.einsum("bot,bit->boi", g.flatten(2), patches).view(-1, group_size, 24, 16, 3, 3).sum(1)
    centered = (rows - rows.mean(0)).square().sum(0)
    exact = (rows.sum(0), rows.abs().sum(0), rows.square().sum(0), rows.sign().sum(0), centered)
    for name, expected in zip(ops.MOMENTS, exact, strict=True):
        value = getattr(found.weight, name)
        assert value.shape == (24, 16, 3, 3)
        assert value.is_contiguous()
        wrong = (value - expected).norm() / expected.norm()
        assert wrong < (0.02 if name == "sign" else 1e-5), name
    biases = g.sum((2, 3)).view(-1, group_size, 24).sum(1)
    torch.testing.assert_close(found.bias.abs, biases.abs().sum(0).float(), rtol=1e-5, atol=1e-4)
    gram, flat = product.gram(group_size), rows.flatten(1)
    assert (gram - flat @ flat.T).norm() / (flat @ flat.T).norm() < 1e-5
    assert (product.gradient() - exact[0]).norm() / exact[0].norm() < 1e-5
    half = product.narrow(2, 2)
    assert not half._formed
    alone = rows[2 // group_size : 4 // group_size].sum(0)
    assert (half.gradient() - alone).norm() / alone.norm() < 1e-5


def test_memo_runs_once_for_an_unchanged_tensor() -> None:
    memo, x = Memo(), torch.randn(4, requires_grad=True) * 1
    first = memo(("relu",), x, lambda: torch.relu(x))
    assert memo(("relu",), x, lambda: torch.relu(x)) is first
    assert memo(("other",), x, lambda: torch.tanh(x)) is not first
    with torch.no_grad():
        first.add_(1)
    second = memo(("relu",), x, lambda: torch.relu(x))
    assert second is not first
    x.mul_(2)
    assert memo(("relu",), x, lambda: torch.relu(x)) is not second


def test_memo_holds_nothing_alive() -> None:
    memo, x = Memo(), torch.randn(4)
    memo(("relu",), x, lambda: torch.relu(x))
    runs = []

    def run() -> Tensor:
        runs.append(0)
        return torch.relu(x)

    kept = memo(("relu",), x, run)  # the first result is gone
    assert runs == [0]
    assert memo(("relu",), x, run) is kept
    assert runs == [0]
