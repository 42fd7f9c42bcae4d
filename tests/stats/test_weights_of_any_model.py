"""Scores count a weight whole, whatever computes it and however it is laid out, and fail in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas.stats import GradMoments, GradNorms, collect

B, T, D = 5, 4, 4  # as many positions as features


class Head(nn.Module):
    """A function of an input and of parameters, then a linear layer."""

    def __init__(self, f: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.f, self.head = f, nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(self, x)
        return self.head(torch.tanh(y).mean(1) if y.dim() > 2 else y)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / 2)


def tokens() -> Tensor:
    return torch.randn(B, T, D)


def expected(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(model(x.double()), y), list(named.values()))
    return {n: float(g.norm()) for n, g in zip(named, found, strict=True)}


LAID_OUT: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "expanded": lambda k, x: torch.bmm(x, k.w.t().expand(len(x), D, D)),
    "repeated": lambda k, x: torch.bmm(x, k.w.repeat(len(x), 1, 1)),
    "scaled then expanded": lambda k, x: torch.baddbmm(x, x, (k.w * 2).expand(len(x), D, D)),
    "expanded then scaled": lambda k, x: x @ (k.w.expand(len(x), D, D) * 2),
    "by einsum": lambda k, x: torch.einsum("bti,bij->btj", x, k.w[None].expand(len(x), -1, -1)),
    "used again as a shift": lambda k, x: x @ k.w + k.w.mean(0),
    "used before as a shift": lambda k, x: (x + k.w.mean(0)) @ k.w,
    "computed, used again as a shift": lambda k, x: x @ k.w.tanh() + k.w.tanh()[0],
}


@pytest.mark.parametrize("name", LAID_OUT)
def test_weights_are_counted_whole(name: str) -> None:
    torch.manual_seed(0)
    model, x, y = Head(LAID_OUT[name], w=parameter(D, D)).double(), tokens(), torch.arange(B) % 3
    found = pynas.score(model, x, y, ["grad_norm"], precision="float64")["grad_norm"]
    assert found.status == "ok"
    norms = expected(model, x, y)
    assert found.layers == pytest.approx({n: norms[n] for n in ("w", "head.weight")})


def test_factors_of_a_table_are_no_weights() -> None:
    """A low-rank table of embeddings multiplies nothing, and neither do its factors."""
    torch.manual_seed(0)
    model = Head(lambda k, x: F.embedding(x, k.a @ k.b).mean(1), a=parameter(7, 2), b=parameter(2, D))
    x, y = torch.randint(0, 7, (B, T)), torch.arange(B) % 3
    scores = pynas.score(model, x, y, ["grad_norm", "l2_norm"])
    assert {tuple(s.layers) for s in scores.values()} == {("head.weight",)}


@pytest.mark.parametrize("f", [F.hardsigmoid, F.hardswish])
def test_curvature_of_functions_whose_derivative_has_none(f: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x, y = tokens(), torch.arange(B) % 3
    written = Head(lambda k, x: f(x @ k.w), w=parameter(D, D)).double()
    same = Head(lambda k, x: F.relu6(x @ k.w + 3) / 6 * (1 if f is F.hardsigmoid else x @ k.w), w=written.w)
    same.head = written.head
    a, b = (pynas.score(m, x, y, ["grasp"], precision="float64")["grasp"] for m in (written, same))
    assert a.status == b.status == "ok"
    assert a.value == pytest.approx(b.value)


def test_no_curvature_is_an_error_in_words() -> None:
    model = Head(lambda k, x: x @ k.w + F.pdist(k.w).sum(), w=parameter(D, D))
    found = pynas.score(model, tokens(), torch.arange(B) % 3, ["grasp"])["grasp"]
    assert found.status == "failed"
    assert found.message.startswith("UserError: model: it has no curvature that PyTorch can compute")


def test_outputs_that_do_not_follow_the_inputs_smoothly() -> None:
    """Their gradient by the inputs is zero, and the score of such rows undefined; it raised a KeyError."""
    model = Head(lambda k, x: k.table(x.argsort(1)[..., 0]).mean(1), table=nn.Embedding(T, D))
    found = pynas.score(model, tokens(), torch.arange(B) % 3, ["jacob_cov"])["jacob_cov"]
    assert found.status == "non_finite"


class Own(torch.autograd.Function):
    """A product into which nobody can look."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.g = parameter(D, D), parameter(D)

    def forward(self, x: Tensor) -> Tensor:
        return Own.apply(x, self.w)


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("kind", ["before", "after", "both", "backward"])
def test_hooks_run_once_in_layers_under_fallback(kind: str, group_size: int) -> None:
    torch.manual_seed(0)
    layer = Layer()
    if kind in ("before", "both"):
        layer.register_forward_pre_hook(lambda m, x: (x[0] + m.g,))
    if kind in ("after", "both"):
        layer.register_forward_hook(lambda m, x, y: y * m.g)
    if kind == "backward":
        layer.register_full_backward_hook(lambda m, gi, go: (2 * gi[0],))
    model = nn.Sequential(nn.Linear(D, D), layer, nn.Linear(D, 3)).double()
    x, y = torch.randn(6, D).double(), torch.arange(6) % 3
    rows: dict[str, list[Tensor]] = {}
    for i in range(0, 6, group_size):
        loss = F.cross_entropy(model(x[i : i + group_size]), y[i : i + group_size]) * group_size / 6
        named = dict(model.named_parameters())
        for n, g in zip(
            named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True
        ):
            rows.setdefault(n, []).append(torch.zeros_like(named[n]) if g is None else g)
    needs = [GradMoments(("sum", "abs")), GradNorms()]
    found = collect(model, x, y, needs=needs, fallback=("1",), group_size=group_size)
    for name, parts in rows.items():
        g = torch.stack(parts)
        torch.testing.assert_close(found[GradMoments][name].sum, g.sum(0))
        torch.testing.assert_close(found[GradMoments][name].abs, g.abs().sum(0))
        torch.testing.assert_close(found[GradNorms][name], g.flatten(1).square().sum(1))
    hooks = len(layer._forward_pre_hooks), len(layer._forward_hooks)
    assert hooks == (int(kind in ("before", "both")), int(kind in ("after", "both")))
    assert "forward" not in vars(layer)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Parameter(torch.randn(D, D, dtype=torch.complex64)), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.to(self.w.dtype) @ self.w).abs())


def test_complex_weights() -> None:
    model, x = Complex(), torch.randn(B, D)
    found = pynas.score(model, x, torch.arange(B) % 3, ["l2_norm", "layers", "grasp", "synflow"])
    parts = torch.cat([model.w.detach().real, model.w.detach().imag])
    assert found["l2_norm"].layers["w"] == pytest.approx(float(parts.norm()))
    assert found["layers"].value == 2
    assert found["grasp"].message.startswith("UserError: model: parameter 'w' is complex")
    assert found["synflow"].message.startswith("UserError: model: parameter 'w' holds complex numbers")


class Single(nn.Module):
    """Runs in float32 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.ones(len(x), D, dtype=torch.float32) @ torch.eye(D) * x[:, :1].float())


def test_flow_of_a_network_that_does_not_run_in_float64() -> None:
    found = pynas.score(Single(), torch.randn(B, D), torch.arange(B) % 3, ["synflow"])["synflow"]
    assert found.message.startswith("UserError: model: it does not run in float64 on one sample of ones")


class Forces(nn.Module):
    """The gradient of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.b(torch.tanh(self.a(x))).sum(), x, create_graph=True)[0][:, :3]


def test_operations_of_a_forward_that_differentiates_itself_are_not_counted() -> None:
    found = pynas.score(Forces(), torch.randn(B, D), torch.arange(B) % 3, ["flops"])["flops"]
    assert found.message.startswith("UserError: model: its forward differentiates itself")


class ByRow(nn.Module):
    """Calls as many functions as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.a(row) for row in x.unbind(0)])


def test_what_needs_no_pass_is_counted_where_samples_cannot_be_followed() -> None:
    for _ in range(2):  # the second time the class is known to be unusual
        found = pynas.score(ByRow(), torch.randn(B, D), torch.arange(B) % 3, ["grad_norm", "params"])
        assert found["params"].value == (D + 1) * 3


@pytest.mark.parametrize("kind", [nn.SiLU, nn.Mish, nn.ELU, nn.Hardswish])
@pytest.mark.parametrize("scale", [1.0, 1e-60])
def test_flow_through_functions_in_place(kind: Callable[..., nn.Module], scale: float) -> None:
    """Also where values have left float64's range, which was an error."""
    values = []
    for inplace in (False, True):
        torch.manual_seed(0)
        layers = [m for _ in range(6) for m in (nn.Linear(D, D), kind(inplace=inplace))]
        model = nn.Sequential(*layers, nn.Linear(D, 3)).double()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(scale)
        found = pynas.score(model, torch.randn(B, D), torch.arange(B) % 3, ["synflow"], precision="float64")
        assert found["synflow"].status == "ok"
        values.append(found["synflow"].value)
    assert values[0] == pytest.approx(values[1])


class Careless(nn.Module):
    """Changes what it is given: in place, or by asking for its gradient."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.table, self.head = nn.Embedding(7, D), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.table(x).mean(1) if self.what == "embedded" else x
        if self.what == "asked":
            y = y[:, :]
            y.requires_grad = True
        else:
            y *= 2
        return self.head(torch.tanh(y))


@pytest.mark.parametrize("what", ["embedded", "given", "asked"])
def test_gradients_of_inputs_that_a_model_changes(what: str) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 7, (B, T)) if what == "embedded" else torch.randn(B, D)
    before = x.clone()
    found = pynas.score(Careless(what), x, torch.arange(B) % 3, ["jacob_cov"])["jacob_cov"]
    assert found.status == "ok"
    assert torch.equal(x, before)
