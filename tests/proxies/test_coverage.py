"""No proxy says that it counted all weights where code that nobody can follow uses one."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas import proxies
from pynas.stats.weights import found_weights

B, D, CLASSES = 6, 8, 3
LABELS = torch.arange(B) % CLASSES
SHARE = CLASSES / (D + CLASSES)  # of the weights, that of the one in sight


def multiplied(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(multiplied)


def unwatched(x: Tensor, w: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x @ w


def in_a_thread(x: Tensor, w: Tensor) -> Tensor:
    found: list[Tensor] = []
    grad = torch.is_grad_enabled()

    def run() -> None:
        with torch.set_grad_enabled(grad):
            found.append(x @ w)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


class InNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.from_numpy(x.detach().numpy() @ w.detach().numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


HIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scripted": lambda x, w: scripted(x, w),
    "scripted, transposed": lambda x, w: scripted(x, w.t()),
    "unwatched": unwatched,
    "in a thread": in_a_thread,
    "in numpy": InNumpy.apply,
}
UNCOUNTED = {"in a thread", "in numpy"}  # which PyTorch's counter of multiply-adds does not see


class Model(nn.Module):
    def __init__(self, hides: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.hides = hides
        self.hidden = nn.Parameter(torch.randn(D, D) / 2)
        self.seen = nn.Parameter(torch.randn(D, CLASSES) / 2)
        self.unused = nn.Parameter(torch.randn(D, D))

    def forward(self, x: Tensor) -> Tensor:
        return self.hides(x, self.hidden).relu() @ self.seen


def scores(model: nn.Module, x: Tensor) -> dict[str, list[pynas.Score]]:
    """Of every proxy: beside all others, and alone."""
    together = pynas.score(model, x, LABELS, proxies.names())
    return {name: [s, pynas.score(model, x, LABELS, [name])[name]] for name, s in together.items()}


COUNTING = [name for name in proxies.names() if proxies.get(name).over_weights]


def test_every_sum_over_weights_is_in_the_test() -> None:
    assert {"layers", "l2_norm", "synflow", "synflow_bn", "snip", "zico", "grasp", "fisher"} <= set(COUNTING)


@pytest.mark.parametrize("name", HIDES)
def test_a_hidden_weight_makes_a_score_partial(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(B, D)
    for proxy, found in scores(Model(HIDES[name]), x).items():
        for score in found:
            if proxy in [*COUNTING, "ntk_condition"]:
                assert score.status == "partial", (proxy, score)
                assert score.coverage == pytest.approx(SHARE), proxy
                assert "hidden cannot be followed" in score.message
                assert proxy == "ntk_condition" or set(score.layers) == {"seen"}
        assert found[0].value == found[1].value or math.isnan(found[0].value), proxy
        assert found[0].status == found[1].status, proxy


@pytest.mark.parametrize("name", HIDES)
def test_multiply_adds_are_all_counted_or_none(name: str) -> None:
    found = pynas.score(Model(HIDES[name]), torch.randn(B, D), LABELS, ["flops"])["flops"]
    if name in UNCOUNTED:
        assert found.status == "failed"
        assert "counter of multiply-adds sees nothing" in found.message
    else:
        assert found.value == D * D + D * CLASSES


def test_multiply_adds_of_a_recurrent_layer() -> None:
    model, steps = nn.LSTM(D, D, batch_first=True), 5
    found = pynas.score(model, torch.randn(B, steps, D), None, ["flops"])["flops"]
    assert found.value == steps * 4 * (D * D + D * D)


@pytest.mark.parametrize("name", ["scripted", "in a thread"])
def test_a_table_that_is_a_weight_only_where_nobody_looks(name: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(CLASSES, D), nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            return HIDES[name](self.layer(self.table(x)).relu(), self.table.weight.t())

    found = scores(Tied(), LABELS)
    for proxy in COUNTING:
        for score in found[proxy]:
            assert score.status == "partial", (proxy, score)
            assert "table.weight cannot be followed" in score.message


def test_a_tied_table_is_a_weight_for_every_proxy() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(CLASSES, D), nn.Linear(D, D)
            self.places = nn.Parameter(torch.randn(1, D))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.layer(self.table(x) + self.places).relu(), self.table.weight)

    model = Tied()
    found = scores(model, LABELS)
    for proxy in COUNTING:
        for score in found[proxy]:
            assert score.status == "ok", (proxy, score)
            assert set(score.layers) == {"table.weight", "layer.weight"}
    norms = float(model.table.weight.detach().norm() + model.layer.weight.detach().norm())
    assert found["l2_norm"][0].value == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("hides", [HIDES["scripted"], HIDES["in a thread"], multiplied])
def test_codes_of_what_nobody_saw_being_made(hides: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(B, D, dtype=torch.float64)
    model = Model(hides).double()
    found = pynas.score(model, x, LABELS, ["naswot"], precision="float64")["naswot"]
    codes = (x @ model.hidden > 0).double().detach()
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    assert found.value == pytest.approx(float(torch.linalg.slogdet(kernel)[1]))


def test_weights_that_leave_as_numbers_are_unseen() -> None:
    model = Model(lambda x, w: torch.from_numpy(x.detach().numpy() @ w.detach().numpy()))
    found = found_weights(model, torch.randn(B, D))
    assert found.names == ("seen",)
    assert found.unseen == {"hidden"}


def test_ntk_condition_as_published_wants_parameters_called_weight() -> None:
    found = pynas.score(Model(multiplied), torch.randn(B, D), LABELS, ["ntk_condition_tenas"])
    assert "called 'weight', and there is none" in found["ntk_condition_tenas"].message
