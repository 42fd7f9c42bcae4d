"""No weight is lost or counted wrong where it meets what nobody saw being made, or is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import pynas
from pynas._errors import UserError
from pynas.stats import Gradients, GradNorms, WeightNorms, collect
from pynas.stats.computed_weights import held

B, T, D, CLASSES = 6, 4, 8, 3
LABELS = torch.arange(B) % CLASSES
pytestmark = pytest.mark.filterwarnings("ignore")


class Two(nn.Module):
    """A function of an input and two matrices."""

    def __init__(self, f: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f
        self.a, self.b = (nn.Parameter(torch.randn(D, n) / 2) for n in (D, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self, x)


def in_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.log1p(np.abs(x.detach().numpy())))


def shifted(x: Tensor) -> Tensor:
    return x * 2 + 1


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(shifted)


OUT_OF_SIGHT: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "numpy": lambda k, x: (in_numpy(x) @ k.a).relu() @ k.b,
    "numbers": lambda k, x: (torch.tensor(x.tolist(), dtype=x.dtype) @ k.a).relu() @ k.b,
    "filled": lambda k, x: (filled(x) @ k.a).relu() @ k.b,
    "DLPack": lambda k, x: (torch.from_dlpack(x.detach()) @ k.a).relu() @ k.b,
    "scripted": lambda k, x: (scripted(x) @ k.a).relu() @ k.b,
    "through a view": lambda k, x: (through_a_view(x) @ k.a).relu() @ k.b,
    "centred": lambda k, x: (lambda h: h - h.mean(0))(in_numpy(x) @ k.a).relu() @ k.b,
    "normalised": lambda k, x: F.batch_norm(in_numpy(x) @ k.a, None, None, training=True).relu() @ k.b,
    "a number": lambda k, x: (by_a_number(x) @ k.a).relu() @ k.b,
    "storage": lambda k, x: (sparse(x).to_dense() @ k.a).relu() @ k.b,
}


def by_a_number(x: Tensor) -> Tensor:
    return torch.stack([torch.arange(D, dtype=x.dtype) * row[0].item() for row in x])


def sparse(x: Tensor) -> Tensor:
    return x.detach().to_sparse()


@torch.library.custom_op("pynas_tests::product", mutates_args=())
def product(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def saved(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def differentiated(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    x, w = ctx.saved_tensors
    return grad @ w.t(), x.t() @ grad


product.register_autograd(differentiated, setup_context=saved)
PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "overload": lambda k, x: torch.ops.aten.mm.default(x, k.a).relu() @ k.b,
    "packet": lambda k, x: torch.ops.aten.mm(x, k.a).relu() @ k.b,
    "custom operator": lambda k, x: product(x, k.a).relu() @ k.b,
    "in place": lambda k, x: torch.zeros(len(x), D, dtype=x.dtype).addmm_(x, k.a).relu() @ k.b,
    "several": lambda k, x: torch.linalg.multi_dot([x, k.a, k.b]),
    "sparse": lambda k, x: torch.sparse.mm(k.a.t().to_sparse(), x.t()).t().relu() @ k.b,
    "cond": lambda k, x: torch.cond(x.sum() > -1e9, lambda h: h @ k.a, lambda h: h @ k.a, (x,)).relu() @ k.b,
    "functional": lambda k, x: torch.func.grad(lambda z: (z @ k.a).tanh().sum())(x) @ k.b,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_by_whatever_name(name: str) -> None:
    torch.manual_seed(0)
    model, x = Two(PRODUCTS[name]).double(), torch.randn(B, D, dtype=torch.float64)
    found = pynas.score(model, x, LABELS, ["snip", "layers", "l2_norm"], precision="float64")
    assert {s.status for s in found.values()} == {"ok"}
    weights = {"a": model.a, "b": model.b}
    grads = torch.autograd.grad(F.cross_entropy(model(x), LABELS), list(weights.values()))
    snip = {n: float((w * g).detach().abs().sum()) for (n, w), g in zip(weights.items(), grads, strict=True)}
    assert found["snip"].layers == pytest.approx(snip)
    assert set(found["l2_norm"].layers) == {"a", "b"}
    try:
        norms = collect(model, x, LABELS, needs=[GradNorms()])[GradNorms]["a"]
    except UserError:
        return
    for b in range(B):
        part = F.cross_entropy(model(x[b : b + 1]), LABELS[b : b + 1]) / B
        assert float(norms[b]) == pytest.approx(float(torch.autograd.grad(part, model.a)[0].square().sum()))


def filled(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for i, row in enumerate(x.tolist()):
        for j, value in enumerate(row):
            y[i, j] = value
    return y


def through_a_view(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape, dtype=x.dtype)
    y.view(-1).copy_(x.flatten())
    return y


@pytest.mark.parametrize("name", OUT_OF_SIGHT)
def test_inputs_that_leave_torch(name: str) -> None:
    torch.manual_seed(0)
    model, x = Two(OUT_OF_SIGHT[name]).double(), torch.randn(B, D, dtype=torch.float64)
    scores = pynas.score(model, x, LABELS, ["snip", "layers", "l2_norm", "zico"], precision="float64")
    assert {s.status for s in scores.values()} == {"ok"}
    assert scores["layers"].value == 2
    assert set(scores["zico"].layers) == {"a", "b"}
    weights = {"a": model.a, "b": model.b}
    found = torch.autograd.grad(F.cross_entropy(model(x), LABELS), list(weights.values()))
    snip = {n: float((w * g).detach().abs().sum()) for (n, w), g in zip(weights.items(), found, strict=True)}
    assert scores["snip"].layers == pytest.approx(snip)
    try:  # statistics over samples may refuse it, but not be wrong
        norms = collect(model, x, LABELS, needs=[GradNorms()], batch_norm="frozen")[GradNorms]["a"]
    except UserError:
        norms = None
    if norms is not None:
        for b in range(B):
            part = F.cross_entropy(model(x[b : b + 1]), LABELS[b : b + 1]) / B
            assert float(norms[b]) == pytest.approx(
                float(torch.autograd.grad(part, model.a)[0].square().sum())
            )


def test_batch_norm_of_what_left_torch_is_by_its_batch() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(D)
    model = Two(lambda k, x: norm(in_numpy(x) @ k.a).relu() @ k.b).double()
    norm.double().eval()
    x = torch.randn(B, D, dtype=torch.float64)
    found = collect(model, x, LABELS, needs=[Gradients()])[Gradients]
    norm.train()
    expected = torch.autograd.grad(F.cross_entropy(model(x), LABELS), model.a)[0]
    torch.testing.assert_close(found["a"], expected)


def test_a_network_in_which_nothing_is_seen_to_multiply_has_no_score() -> None:
    table = nn.Embedding(7, CLASSES)
    found = pynas.score(table, torch.randint(0, 7, (B,)), LABELS, ["snip", "l2_norm", "params"])
    assert found["snip"].message.startswith("UserError: snip: none of the model's parameters")
    assert found["l2_norm"].status == "failed"
    assert found["params"].status == "ok"


class Product(torch.autograd.Function):
    """A product into which nobody can look."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.from_numpy(x.detach().numpy() @ w.detach().numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


HIDDEN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "transposed": lambda k, x: Product.apply(x, k.a.t()) @ k.b,
    "itself": lambda k, x: Product.apply(x, k.a) @ k.b,
    "also a shift": lambda k, x: (Product.apply(x, k.a) + k.a.mean(0)) @ k.b,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_weights_that_a_function_of_its_own_hides(name: str) -> None:
    torch.manual_seed(0)
    found = pynas.score(Two(HIDDEN[name]), torch.randn(B, D), LABELS, ["snip"])["snip"]
    assert found.status == "partial"
    assert "counts" in found.message
    assert "a cannot be followed" in found.message


def test_a_penalty_in_a_loss_of_several_values() -> None:
    model = nn.Linear(D, CLASSES)

    def penalised(y: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(y, targets) + model.weight.max(0)[0].sum()

    with pytest.raises(UserError, match="a penalty on weights"):
        collect(model, torch.randn(B, D), LABELS, penalised, needs=[Gradients()])


class Twice(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * torch.tanh(w)


class Dropped(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return F.dropout(w, 0.5, training=True)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(D, D) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.w)


class Pooled(nn.Module):
    """A layer for sequences, and a classifier of the mean of what it puts out."""

    def __init__(self, layer: nn.Module, uses: int = 1) -> None:
        super().__init__()
        self.layer, self.uses, self.head = layer, uses, nn.Linear(D, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(*[x] * self.uses)[0].mean(1))


def pruned() -> nn.Module:
    layer = nn.Linear(D, D)
    prune.l1_unstructured(layer, "weight", 0.4)
    layer.register_parameter("weight_scale", nn.Parameter(torch.ones(D)))
    return layer


def sequential(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(D, CLASSES))


COMPUTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "own module": (lambda: sequential(parametrize.register_parametrization(Own(), "w", Twice())), "0.w"),
    "at random": (lambda: sequential(parametrize.register_parametrization(Own(), "w", Dropped())), "0.w"),
    "recurrent": (
        lambda: Pooled(parametrizations.weight_norm(nn.LSTM(D, D, batch_first=True), "weight_hh_l0")),
        "layer.weight_hh_l0",
    ),
    "recurrent, by a hook": (
        lambda: Pooled(nn.utils.weight_norm(nn.LSTM(D, D, batch_first=True), "weight_hh_l0")),
        "layer.weight_hh_l0",
    ),
    "attention": (
        lambda: Pooled(
            parametrizations.weight_norm(nn.MultiheadAttention(D, 2, batch_first=True), "in_proj_weight"), 3
        ),
        "layer.in_proj_weight",
    ),
    "spectral": (lambda: sequential(parametrizations.spectral_norm(nn.Linear(D, D))), "0.weight"),
    "pruned": (lambda: sequential(pruned()), "0.weight"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_computed_weight_of_any_module_is_one(name: str) -> None:
    torch.manual_seed(0)
    make, key = COMPUTED[name]
    model = make().double()
    x = torch.randn(B, T, D, dtype=torch.float64) if isinstance(model, Pooled) else torch.randn(B, D).double()
    before, kinds = {k: v.clone() for k, v in model.state_dict().items()}, list(map(type, model.modules()))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # which has no say
        found.append(pynas.score(model, x, LABELS, ["snip", "l2_norm"], seed=5, precision="float64"))
    assert {n: s.layers for n, s in found[0].items()} == {n: s.layers for n, s in found[1].items()}
    assert kinds == list(map(type, model.modules()))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with held(model, 5):
        weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
        gradients = torch.autograd.grad(F.cross_entropy(model(x), LABELS), list(weights.values()))
        snip = {
            n: float((w * g).detach().abs().sum())
            for (n, w), g in zip(weights.items(), gradients, strict=True)
        }
        if "pruned" in name:
            assert "0.weight_scale" in dict(model.named_parameters())
    assert key in snip
    assert found[0]["snip"].layers == pytest.approx(snip)
    assert set(found[0]["l2_norm"].layers) == set(snip)


def test_a_tied_computed_weight_is_one() -> None:
    torch.manual_seed(0)
    a, b = (parametrizations.weight_norm(nn.Linear(D, D)) for _ in range(2))
    for part in ("original0", "original1"):
        setattr(b.parametrizations.weight, part, getattr(a.parametrizations.weight, part))
    model = nn.Sequential(a, nn.Tanh(), b, nn.Tanh(), nn.Linear(D, CLASSES))
    found = pynas.score(model, torch.randn(B, D), LABELS, ["l2_norm", "layers"])
    assert found["l2_norm"].value == pytest.approx(float(a.weight.norm() + model[4].weight.norm()), rel=1e-6)
    assert found["layers"].value == 2


def test_norms_of_weights_move_no_spectral_norm() -> None:
    torch.manual_seed(0)

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(D, CLASSES)), Centred())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    collect(model, torch.randn(B, D), LABELS, needs=[Gradients(), WeightNorms()], training=True)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
