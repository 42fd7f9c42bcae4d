"""Models on which statistics could be silently wrong, and what is refused, with what to do."""

from __future__ import annotations

import collections
import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import pynas
from pynas._errors import UserError
from pynas.stats import Gradients, GradMoments, GradNorms, InputGradients, UnsupportedLayerError, collect
from tests.stats.any_models import MODELS, Headed, parameter

LABELS = torch.arange(4) % 3


def names(model: nn.Module, x: Any, **options: Any) -> list[str]:
    return sorted(collect(model, x, LABELS, needs=[GradNorms()], **options)[GradNorms])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(
    "proxy", ["zico", "snip", "grad_norm", "grad_sign", "grasp", "fisher", "synflow", "l2_norm"]
)
def test_weights_of_recurrent_layers_count(proxy: str) -> None:
    torch.manual_seed(0)
    score = pynas.score(Recurrent(), torch.randn(4, 5, 8), LABELS, [proxy])[proxy]
    assert score.status == "ok", score.message
    assert score.coverage == 1
    assert {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"} <= score.layers.keys()


@pytest.mark.parametrize("proxy", ["layers", "l2_norm"])
def test_a_computed_weight_counts_once(proxy: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
    x = torch.randn(4, 8)
    expected = pynas.score(plain, x, LABELS, [proxy])[proxy].value
    for index in (0, 2):
        parametrizations.weight_norm(plain[index])
    assert pynas.score(plain, x, LABELS, [proxy])[proxy].value == pytest.approx(expected, rel=1e-6)


def test_snip_of_any_product() -> None:
    class Product(Headed):
        def make(self) -> None:
            self.w = parameter(8, 8)

        def body(self, x: Tensor) -> Tensor:
            return torch.einsum("bc,cd->bd", x, self.w)

    torch.manual_seed(0)
    model, x = Product(), torch.randn(4, 8)
    score = pynas.score(model, x, LABELS, ["snip"])["snip"]
    F.cross_entropy(model(x), LABELS).backward()
    weights = (model.w, model.head.weight)
    expected = sum(float((w * w.grad).detach().abs().sum()) for w in weights if w.grad is not None)
    assert score.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("proxy", ["grasp"])
def test_curvature_of_any_product(proxy: str) -> None:
    """Against plain double differentiation over the same weights."""
    torch.manual_seed(0)
    model, x = Recurrent().double(), torch.randn(4, 5, 8).double()
    score = pynas.score(model, x, LABELS, [proxy], precision="float64")[proxy]
    weights = [model.rnn.weight_ih_l0, model.rnn.weight_hh_l0, model.head.weight]
    grads = torch.autograd.grad(F.cross_entropy(model(x), LABELS), weights, create_graph=True)
    total = sum((g * g.detach()).sum() for g in grads)
    second = torch.autograd.grad(total, weights)
    expected = -sum(float((w * h).detach().sum()) for w, h in zip(weights, second, strict=True))
    assert score.value == pytest.approx(expected, rel=1e-9)


def test_a_score_of_some_weights_is_partial() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, w = ctx.saved_tensors
            return grad @ w.T, x.T @ grad

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.head = parameter(8, 9), nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(Own.apply(x, self.w)))

    model, x = Hidden(), torch.randn(4, 8)
    score = pynas.score(model, x, LABELS, ["grad_sign"])["grad_sign"]
    assert score.status == "partial"
    assert score.coverage == pytest.approx(27 / (27 + 72))
    assert "w cannot be followed" in score.message
    assert pynas.score(model, x, LABELS, ["grad_sign"], fallback=("",))["grad_sign"].status == "ok"
    with pytest.raises(
        UnsupportedLayerError, match=r"'w' of layer ''.*fallback=\('',\).*works on these data"
    ):
        names(model, x)


def test_a_tied_weight_counts_wherever_it_is_used_first() -> None:
    class Tied(nn.Module):
        """Looked up first, which is no product, and multiplied later."""

        def __init__(self) -> None:
            super().__init__()
            self.table = parameter(11, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(F.embedding(x, self.table).mean(1)) @ self.table.T

    torch.manual_seed(0)
    model, x = Tied().double(), torch.randint(0, 11, (4, 6))
    found = collect(model, x, LABELS, needs=[Gradients(parameters="weights")])[Gradients]["table"]
    F.cross_entropy(model(x), LABELS).backward()
    torch.testing.assert_close(found, model.table.grad)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("proxy", ["zico", "snip", "synflow", "jacob_cov", "grasp"])
def test_activation_checkpoints(reentrant: bool, proxy: str) -> None:
    class Saving(nn.Module):
        def __init__(self, saves: bool) -> None:
            super().__init__()
            self.a, self.b, self.saves = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), saves
            self.c = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c(checkpoint(self.b, x, use_reentrant=reentrant) if self.saves else self.b(x))

    x, scores = torch.randn(4, 8), []
    for saves in (True, False):
        torch.manual_seed(0)
        scores.append(pynas.score(Saving(saves), x, LABELS, [proxy])[proxy])
        assert scores[-1].status == "ok", scores[-1].message
    assert scores[0].value == scores[1].value


def test_outputs_and_inputs_of_other_kinds() -> None:
    Both = collections.namedtuple("Both", "logits aux")

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor, mask: Tensor | None = None, double: bool = False) -> Any:
            return Both(self.head(x) * (2 if double else 1), None)

    class Encoding(collections.UserDict):  # type: ignore[type-arg]
        """What tokenizers return: a mapping, and no dictionary."""

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.logits, targets)

    torch.manual_seed(0)
    model, x = Several(), torch.randn(4, 8)
    found = [
        pynas.score(model, inputs, LABELS, ["grad_sign", "snip"], loss_fn=loss)
        for inputs in (x, {"x": x, "mask": None}, Encoding({"x": x, "double": False}), (x, None))
    ]
    for scores in found:
        assert {n: (s.status, s.value) for n, s in scores.items()} == {
            n: ("ok", s.value) for n, s in found[0].items()
        }


def test_a_loss_that_reads_the_weights_is_refused() -> None:
    model, x = nn.Linear(8, 3), torch.randn(4, 8)

    def penalised(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(UserError, match=r"loss_fn: it reads parameter 'weight'.*penalty"):
        collect(model, x, LABELS, penalised, needs=[GradNorms()])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_models_are_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3)))
    scores = pynas.score(
        scripted, torch.randn(4, 8), LABELS, ["zico", "naswot", "synflow", "layers", "params"]
    )
    for name, score in scores.items():
        assert score.status == ("ok" if name == "params" else "failed")
        assert name == "params" or "scripted" in score.message


def test_a_forward_that_differentiates_itself_is_refused() -> None:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]

    x = torch.randn(4, 3)
    with pytest.raises(UserError, match="differentiates itself"):
        names(Forces(), x)
    assert "net.0.weight" in names(Forces(), x, fallback=("",))


@pytest.mark.parametrize("by_mask", [True, False])
def test_routed_experts_name_the_layer_and_what_works(by_mask: bool) -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(8, 3), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            chosen, y = self.gate(x).argmax(-1), torch.zeros_like(x)
            for i in range(3) if by_mask else chosen.unique().tolist():
                mask = chosen == i
                if mask.any():
                    y[mask] = self.experts[i](x[mask])
            return y

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.moe, self.head = Routed(), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.moe(x)).mean(1))

    torch.manual_seed(3)
    model, x = Model(), torch.randn(4, 2, 8)
    with pytest.raises(UserError, match=r"pass fallback=\('moe',\)"):
        names(model, x)
    found = collect(model, x, LABELS, needs=[Gradients()], fallback=("moe",))[Gradients]
    F.cross_entropy(model(x), LABELS).backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad)


def test_copies_of_a_parameter_brought_together_are_refused() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.maker, self.head = parameter(1, 4), nn.Linear(4, 64), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            made = self.maker(self.code.expand(len(x), 4)).mean(0)
            return self.head(torch.tanh(F.linear(x, made.view(8, 8))))

    with pytest.raises(UserError, match="copies of a parameter"):
        names(Mean(), torch.randn(4, 8))


def test_forward_only_proxies_where_no_parameter_is_followed() -> None:
    class Map(nn.Module):
        """A convolution of a map of positions, without samples."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(4, 8, 1), nn.Conv2d(3, 8, 1), nn.Linear(8, 3)
            self.register_buffer("grid", torch.randn(1, 4, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.b(x) + self.a(self.grid)).mean((2, 3)))

    scores = pynas.score(Map(), torch.randn(4, 3, 8, 8), LABELS, ["naswot", "jacob_cov", "zico"])
    assert {s.status for s in scores.values()} == {"ok"}


def test_numbers_drawn_by_numpy_repeat() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x * torch.from_numpy(np.random.rand(8).astype("float32")))  # noqa: NPY002

    model, x = Drawing(), torch.randn(4, 8)
    values = {pynas.score(model, x, LABELS, ["snip"])["snip"].value for _ in range(2)}
    assert len(values) == 1


def test_resized_buffers_come_back() -> None:
    class Observer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)
            self.register_buffer("least", torch.empty(0))

        def forward(self, x: Tensor) -> Tensor:
            self.least.resize_(8).copy_(x.detach().amin(0))
            return self.layer(x)

    model, x = Observer().train(), torch.randn(4, 8)
    collect(model, x, LABELS, needs=[InputGradients(), GradMoments()], training=False)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert model.least.shape == (0,)


def test_a_computed_weight_that_changes_after_its_use_is_refused() -> None:
    """Its history would then hold the change too, and the first use's gradients would be those of another."""

    class Doubles(Headed):
        def make(self) -> None:
            self.w = parameter(8, 8)

        def body(self, x: Tensor) -> Tensor:
            w = self.w * 1.0
            y = F.linear(x, w)
            w[:4].mul_(2.0)
            return y + F.linear(x, w)

    with pytest.raises(UserError, match=r"changes in place \(mul_\) what it has computed from parameters"):
        names(Doubles(), torch.randn(4, 8))


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_another_order_is_seen_in_binary_inputs_too(kind: torch.dtype) -> None:
    class Rolled(nn.Module):
        """Scales features of a sample in its neighbour's place, and puts them back."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.scale, self.head = nn.Linear(6, 8), parameter(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.a(x.float()).roll(1, 0) * self.scale).roll(-1, 0))

    x = (torch.arange(24).view(4, 6) % 5 < 2).to(kind)
    with pytest.raises(UnsupportedLayerError, match=r"'scale'.*another order"):
        names(Rolled(), x)


@pytest.mark.parametrize("proxy", ["synflow", "grasp", "snip", "grad_norm"])
def test_pruned_weights_count(proxy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    score = pynas.score(model, torch.randn(4, 8), LABELS, [proxy])[proxy]
    assert score.status == "ok", score.message
    assert score.layers.keys() == {"0.weight", "2.weight"}


@pytest.mark.parametrize("name", MODELS)
def test_proxies_agree_on_what_a_weight_is(name: str) -> None:
    """Each by its own pass, and without biases, tokens and states."""
    torch.manual_seed(0)
    kind, make = MODELS[name]
    model, x = kind().double().train(), make(4)
    proxies = ["snip", "grad_norm", "grasp", "synflow"]
    scores = pynas.score(model, x, LABELS, proxies, precision="float64")
    counted = {proxy: score.layers.keys() for proxy, score in scores.items() if score.status == "ok"}
    assert counted
    # The logarithm of synflow leaves out what contributes nothing: weights that are zero at first.
    nothing = {layer for layer, value in scores["snip"].layers.items() if value == 0}
    for layers in counted.values():
        assert layers | nothing == counted["snip"]
        # Parameters, and weights that layers compute.
        assert all(functools.reduce(getattr, layer.split("."), model).dim() > 1 for layer in layers)


def test_tokens_that_are_all_the_same_cannot_show_an_order() -> None:
    model = MODELS["positions looked up"][0]()
    with pytest.raises(UserError, match="inputs: every value is the same"):
        names(model, torch.zeros(4, 6, dtype=torch.int64))
