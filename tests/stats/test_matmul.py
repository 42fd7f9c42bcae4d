"""Matrices of parameters used as ``x @ W``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas.stats import GradMoments, GradNorms, collect

FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda x, w: x @ w,
    "mm": lambda x, w: x.mm(w),
    "torch.mm": torch.mm,
    "matmul": lambda x, w: x.matmul(w),
    "torch.matmul": torch.matmul,
}


class Unrolled(nn.Module):
    """A recurrence whose matrix is used at every step."""

    def __init__(self, multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.multiply = multiply
        self.inner = nn.Parameter(0.5 * torch.randn(4, 4))
        self.outer = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(self.multiply(h + x[:, t], self.inner))
        return self.multiply(h, self.outer)


@pytest.mark.parametrize("form", FORMS)
def test_matrices_on_the_right(form: str) -> None:
    torch.manual_seed(0)
    model = Unrolled(FORMS[form]).double()
    x, targets = torch.randn(5, 3, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = collect(model, x, targets, needs=[GradNorms(), GradMoments()])
    rows: dict[str, list[Tensor]] = {"inner": [], "outer": []}
    for b in range(5):
        model.zero_grad()
        (F.cross_entropy(model(x[b : b + 1]), targets[b : b + 1]) / 5).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            rows[name].append(parameter.grad)
    for name, gradients in rows.items():
        stacked = torch.stack(gradients)
        torch.testing.assert_close(found[GradNorms][name], stacked.flatten(1).square().sum(1))
        torch.testing.assert_close(found[GradMoments][name].sum, stacked.sum(0))
        torch.testing.assert_close(found[GradMoments][name].abs, stacked.abs().sum(0))


def test_many_positions_a_sample() -> None:
    torch.manual_seed(0)

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight).mean(1)

    layer = Positions()
    x, targets = torch.randn(5, 7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = collect(layer, x, targets, needs=[GradMoments()])
    F.cross_entropy(layer(x), targets).backward()
    torch.testing.assert_close(found[GradMoments]["weight"].sum, layer.weight.grad)


@pytest.mark.parametrize("transposes", [True, False])
def test_matrices_on_the_left(transposes: bool) -> None:
    torch.manual_seed(0)

    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight @ x[..., 0].T).T if transposes else (self.weight @ x).sum(2)

    layer = Left()
    x, targets = torch.randn(5, 4, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = collect(layer, x, targets, needs=[GradMoments(("sum", "abs"))])[GradMoments]["weight"]
    rows = []
    for b in range(5):
        loss = F.cross_entropy(layer(x[b : b + 1]), targets[b : b + 1]) / 5
        rows.append(torch.autograd.grad(loss, layer.weight)[0])
    torch.testing.assert_close(found.sum, torch.stack(rows).sum(0))
    torch.testing.assert_close(found.abs, torch.stack(rows).abs().sum(0))
