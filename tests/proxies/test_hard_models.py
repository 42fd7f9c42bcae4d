"""Scores of complex weights, and of operators that are differentiable once only: right, or one sentence."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas.proxies import names

LABELS = torch.arange(4) % 3


class Spectral(nn.Module):
    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 3)
        self.filter = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64), requires_grad=not frozen)

    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(self.conv(x)).mean((2, 3)) + 0.1
        return self.head(self.relu((z.to(self.filter.dtype) @ self.filter).abs()))


COUNTED = {
    "params", "flops", "layers", "l2_norm", "naswot", "logdet", "linear_regions", "jacob_cov", "epe_nas",
    "ntk_condition", "ntk_condition_tenas", "naswot_published",
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", names())
def test_complex_weights(name: str, precision: Any) -> None:
    torch.manual_seed(0)
    model, x = Spectral(), torch.randn(4, 3, 8, 8)
    before = model.filter.detach().clone()
    score = pynas.score(model, x, LABELS, [name], precision=precision)[name]
    if name in COUNTED:
        assert score.status == "ok", score.message
    elif score.status == "failed":
        assert re.search("'filter' (holds complex numbers|is complex)", score.message)
    else:  # it has no rule for them, and says so
        assert score.status == "partial"
        assert "filter" in score.message
    assert torch.equal(before, model.filter)


def test_norms_of_complex_weights() -> None:
    model, x = Spectral(), torch.randn(4, 3, 8, 8)
    layers = pynas.score(model, x, LABELS, ["l2_norm"])["l2_norm"].layers
    assert layers["filter"] == pytest.approx(float(model.filter.detach().abs().square().sum().sqrt()))


def test_conversion_keeps_imaginary_parts() -> None:
    torch.manual_seed(0)
    model, x = Spectral(frozen=True), torch.randn(4, 3, 8, 8)
    scores = [pynas.score(model, x, LABELS, ["snip"], precision=p)["snip"] for p in ("float32", "float64")]
    assert scores[0].value == pytest.approx(scores[1].value, rel=1e-4)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].exp()


class Through(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.centres, self.what = nn.Parameter(torch.randn(8, 8)), what

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.what(torch.tanh(self.body(x)), self.centres))


@pytest.mark.parametrize(
    ("what", "operator"),
    [
        (lambda z, p: z @ p + F.pdist(p).sum(), "operator pdist"),
        (lambda z, p: Once.apply(z), "an autograd function of its own"),
    ],
)
def test_operators_without_a_second_derivative(what: Any, operator: str) -> None:
    torch.manual_seed(0)
    score = pynas.score(Through(what), torch.randn(4, 8), LABELS, ["grasp"])["grasp"]
    assert score.status == "failed"
    assert f"that PyTorch can compute: {operator} can be differentiated once only" in score.message


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances_have_a_second_derivative(p: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    values = []
    for what in (
        lambda z, c: torch.cdist(z, c, p=p),
        lambda z, c: (z[:, None] - c).abs().pow(p).sum(-1).pow(1 / p),
    ):
        torch.manual_seed(1)
        score = pynas.score(Through(what), x, LABELS, ["grasp"], precision="float64")["grasp"]
        assert score.status == "ok", score.message
        assert math.isfinite(score.value)
        values.append(score.layers["body.weight"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("proxy", ["snip", "grad_norm", "plain", "zico_per_sample"])
@pytest.mark.parametrize("first", [True, False])
def test_a_weight_counts_with_all_its_uses(first: bool, proxy: str) -> None:
    """A matrix that is added as well, before or after it multiplies."""

    def tied(z: Tensor, p: Tensor) -> Tensor:
        return z @ p + p[0] if first else (z + p[0]) @ p

    def apart(z: Tensor, p: Tensor) -> Tensor:
        q = p * torch.ones(8, 1).to(p)
        return z @ q + q[0] if first else (z + q[0]) @ q

    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    scores = []
    for what in (tied, apart):
        torch.manual_seed(0)
        scores.append(pynas.score(Through(what), x, LABELS, [proxy], precision="float64")[proxy])
    assert scores[0].layers.keys() == scores[1].layers.keys()
    for name, value in scores[0].layers.items():
        assert value == pytest.approx(scores[1].layers[name], rel=1e-6), name
    if proxy == "grad_norm":
        torch.manual_seed(0)
        model = Through(tied).double()
        F.cross_entropy(model(x.double()), LABELS).backward()
        assert scores[0].layers["centres"] == pytest.approx(float(model.centres.grad.norm()), rel=1e-6)
