"""Forwards that transform themselves by torch.func: as a loop over samples has it, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.stats import GradNorms, collect

B, T, D = 6, 6, 5
LABELS = torch.arange(B) % 3


class Inner(nn.Module):
    def __init__(self, what: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.what = nn.Linear(D, D), what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self.a, x)


class Outer(nn.Module):
    def __init__(self, what: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.head = Inner(what), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).tanh().mean(1))


def mask(a: nn.Module, x: Tensor) -> Tensor:
    keep = torch.func.vmap(lambda i: (torch.arange(T) <= i).to(x.dtype))(torch.arange(T))
    return keep @ a(x)


def taken(a: nn.Module, x: Tensor) -> Tensor:
    """First and last exchanged, sample by sample."""
    h, order = a(x), torch.arange(len(x))
    order[0], order[-1] = len(x) - 1, 0
    return torch.func.vmap(lambda i: h.index_select(0, i[None])[0])(order)


WAYS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "over samples": lambda a, x: torch.func.vmap(a)(x),
    "over steps": lambda a, x: torch.func.vmap(a, in_dims=1, out_dims=1)(x),
    "flipped inside": lambda a, x: torch.func.vmap(lambda z: a(z).flip(0), in_dims=1, out_dims=1)(x),
    "rolled inside": lambda a, x: torch.vmap(lambda z: z.roll(1, 0), in_dims=1, out_dims=1)(a(x)),
    "summed inside": lambda a, x: torch.vmap(lambda z: z + z.sum(0), in_dims=1, out_dims=1)(a(x)),
    "exchanged": lambda a, x: torch.func.vmap(a, in_dims=1)(x),
    "jvp": lambda a, x: torch.func.jvp(lambda z: a(z).tanh(), (x,), (torch.ones_like(x),))[1],
    "vjp": lambda a, x: torch.func.vjp(lambda z: a(z).tanh(), x)[1](torch.ones_like(x))[0],
    "grad": lambda a, x: torch.func.grad(lambda z: a(z).tanh().sum())(x),
    "stacked": lambda a, x: torch.func.vmap(lambda w: F.linear(x, w))(torch.stack([a.weight] * 2))[1],
    "taken": taken,
    "mask": mask,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own, for jvp
@pytest.mark.parametrize("way", WAYS)
def test_a_forward_that_transforms_itself(way: str) -> None:
    torch.manual_seed(0)
    model, x = Outer(WAYS[way]).double(), torch.randn(B, T, D, dtype=torch.float64)
    if way != "mask":
        with pytest.raises(UserError, match=r"layer 'inner(\.a)?' transforms itself by torch\.func"):
            collect(model, x, LABELS, needs=[GradNorms()])
        return
    found = collect(model, x, LABELS, needs=[GradNorms()])[GradNorms]
    for b in range(B):
        loss = F.cross_entropy(model(x[b : b + 1]), LABELS[b : b + 1]) / B
        (expected,) = torch.autograd.grad(loss, model.inner.a.weight)
        assert float(found["inner.a.weight"][b]) == pytest.approx(float(expected.square().sum()))


class ByWeight(nn.Module):
    """Takes the gradient of its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = nn.Linear(D, 3), nn.Parameter(torch.randn(D, D))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x @ self.w)
        (g,) = torch.autograd.grad(y.sum(), self.a.weight, create_graph=True)
        return y @ (g @ g.t())


def test_weights_of_a_forward_that_differentiates_itself_are_counted() -> None:
    torch.manual_seed(0)
    model, x = ByWeight(), torch.randn(B, D)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = pynas.score(model, x, LABELS, ["layers", "l2_norm", "jacob_cov"])
    assert found["layers"].value == 2
    norms = (model.a.weight.norm() + model.w.norm()).detach()
    assert found["l2_norm"].value == pytest.approx(float(norms), rel=1e-6)
    assert "UserError: model: its forward differentiates itself" in found["jacob_cov"].message
    assert all(p.requires_grad and torch.equal(p, before[name]) for name, p in model.named_parameters())
