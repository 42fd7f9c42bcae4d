"""Parts that reach nothing, or only a product with zero, are skipped, and every number is as without that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import spaces
from pynas.architecture import Architecture
from pynas.stats import (
    GradGram,
    Gradients,
    GradMoments,
    GradNorms,
    RunningGradMoments,
    Statistics,
    _attempts,
    _dead_parts,
    collect,
)

B, D, CLASSES = 12, 6, 3
NEEDS = [GradMoments(("sum", "abs", "square", "centered")), GradNorms(), GradGram()]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing is remembered from test to test."""
    for known in (_attempts._PLANS, _attempts._PARTLY):
        known.clear()
    yield
    for known in (_attempts._PLANS, _attempts._PARTLY):
        known.clear()


def values(found: Statistics) -> dict[str, Any]:
    """All results, by statistic, parameter and field."""
    result: dict[str, Any] = {}
    for kind, results in found.values.items():
        for name, value in results.items():
            parts = {"": value}
            if not isinstance(value, Tensor):
                parts = {f.name: getattr(value, f.name) for f in fields(value)}
            result |= {f"{kind.__name__} {name} {k}": v for k, v in parts.items() if v is not None}
    return result


def both(run: Callable[[], Statistics], monkeypatch: pytest.MonkeyPatch) -> tuple[Statistics, Statistics]:
    """With dead parts skipped and without."""
    skipped = run()
    with monkeypatch.context() as patch:
        patch.setattr(_attempts, "worth_while", lambda *_: False)
        return skipped, run()


def same(a: Statistics, b: Statistics) -> None:
    first, second = values(a), values(b)
    assert first.keys() == second.keys()
    for key, value in second.items():
        if isinstance(value, Tensor):
            # Where two uses would be combined that are one now, sums round in another order.
            torch.testing.assert_close(first[key], value, rtol=1e-12, atol=1e-18, msg=key)
            assert first[key].stride() == value.stride(), key
        else:
            assert first[key] == value, key
    assert a.parameters == b.parameters
    assert (a.matrices, a.missed, a.losses) == (b.matrices, b.missed, b.losses)


def plan() -> Any:
    (found,) = _attempts._PLANS.values()
    return found


# Edge by edge: 0 none, 1 skip, 2 conv1x1, 3 conv3x3, 4 pool.
CELLS = {
    "into a node that nobody reads": (3, 2, 0, 1, 0, 1),
    "out of a node of zeros": (0, 2, 3, 4, 0, 2),
    "two dead ones": (2, 0, 2, 3, 0, 0),
    "nothing at all": (3, 3, 3, 0, 0, 0),
    "all live": (3, 1, 2, 4, 1, 2),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch_norm"), [*((name, "batch") for name in CELLS), ("two dead ones", "group")]
)
def test_cells_of_nasbench201(name: str, batch_norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = spaces.get("nasbench201").build(Architecture("nasbench201", CELLS[name]))
    images, labels = torch.randn(B, 3, 8, 8), torch.arange(B) % 10

    def run() -> Statistics:
        return collect(
            model, images, labels, needs=NEEDS, batch_norm=batch_norm, training=True, group_size=3, seed=1
        )

    same(*both(run, monkeypatch))
    if name in ("into a node that nobody reads", "two dead ones", "nothing at all"):
        assert plan().dead


def test_micro_batches_and_whole_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = spaces.get("nasbench201").build(Architecture("nasbench201", CELLS["two dead ones"]))
    images, labels = torch.randn(2 * B, 3, 8, 8), torch.arange(2 * B) % 10
    for options in (
        {"needs": [RunningGradMoments(parameters="weights")], "micro_batches": 2},
        {"needs": [Gradients()]},
    ):
        same(*both(lambda o=options: collect(model, images, labels, training=True, **o), monkeypatch))
        assert plan().dead
        _attempts._PLANS.clear()


class Branches(nn.Module):
    """A linear layer, what a function does with it and further layers, and a classifier."""

    def __init__(self, f: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.f = f
        self.a, self.b, self.c = (nn.Linear(D, D) for _ in range(3))
        self.norm, self.head = nn.BatchNorm1d(D), nn.Linear(D, CLASSES)
        self.w = nn.Parameter(torch.randn(D, D))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.f(self, torch.tanh(self.a(x))))


class Own(torch.autograd.Function):
    """Unseen by any mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def kept(k: Any, h: Tensor) -> Tensor:
    k.seen = k.b(h)
    return h + k.seen * 0.0


def number(k: Any, h: Tensor) -> Tensor:
    y = k.b(h)
    return h * y.sum().tanh().item() + y * 0.0


def unseen_number(k: Any, h: Tensor) -> Tensor:
    y = k.b(h)
    with torch._C.DisableTorchFunction():
        scale = float(y.detach().sum().tanh())
    return h * scale + y * 0.0


def written(k: Any, h: Tensor) -> Tensor:
    y = torch.zeros_like(h)
    y[:, :2] = k.b(h)[:, :2]
    return h + y + k.c(h) * 0.0


def longest(k: Any, h: Tensor) -> Tensor:
    """Live parts read the size of a dead one, which the whole batch decides."""
    width = 2 + int((h.detach()[:, 0] > 0).sum() > 2)
    y = k.b(h)[:, : width + 1]
    return h * y.shape[1] + F.pad(y, (0, D - y.shape[1])) * 0.0


def chosen(k: Any, h: Tensor) -> Tensor:
    """One of two layers, by numbers drawn after as many as there are samples."""
    noise = torch.rand(len(h))
    layer = k.b if torch.rand(5)[len(noise) % 5] > 0.5 else k.c
    return h + layer(h) * 0.0


def several(k: Any, h: Tensor) -> Tensor:
    left, right = k.b(h).chunk(2, 1)
    return h + torch.cat([left, right * 2], 1).mul(0)


SKIPPED: dict[str, Callable[[Any, Tensor], Any]] = {
    "a branch": lambda k, h: h + 0.0 * k.c(k.b(h).relu()),
    "normalised": lambda k, h: h + k.norm(k.b(h)) * 0.0,
    "a shared layer": lambda k, h: k.b(h) + k.b(k.c(h)).mul(0.0),
    "a product": lambda k, h: h + (h @ k.w.t()) * 0,
    "nothing reads it": lambda k, h: (k.b(h).relu(), h + k.c(h) * 0.0)[1],
    "an attribute": kept,
    "in pieces": several,
    "shapes": lambda k, h: h + (lambda y: y.view(y.shape[0], -1, 1).squeeze(2))(k.b(h)) * 0.0,
    "in place elsewhere": written,
    "a copy of all": lambda k, h: h * 0.0 + 1.0,
}
RUN: dict[str, Callable[[Any, Tensor], Any]] = {
    "random": lambda k, h: F.dropout(h, 0.5, True) + F.dropout(k.b(h), 0.5, True) * 0.0,
    "random before": lambda k, h: F.dropout(k.b(h), 0.5, True) * 0.0 + F.dropout(h, 0.5, True),
    "in place": lambda k, h: h + k.b(h).relu_() * 0.0,
    "a number": number,
    "a number that nobody sees": unseen_number,
    "a function of its own": lambda k, h: h + Own.apply(k.b(h)) + k.c(h) * 0.0,
    "a dead function of its own": lambda k, h: h + Own.apply(k.b(h)) * 0.0,
    "a function of its own beside": lambda k, h: (lambda y: h + y * 0.0 + Own.apply(y))(k.b(h)),
    "a device": lambda k, h: h + torch.ones(D, dtype=h.dtype, device=(y := k.b(h)).device) + y * 0.0,
    "a choice": lambda k, h: (lambda y: h if y.device.type == "cpu" else h * 2)(y := k.b(h)) + y * 0.0,
    "a scale that is a parameter": lambda k, h: h + k.b(h) * (k.w * 0.0)[0],
    "the longest": longest,
    "one of two": chosen,
    "computed from a parameter": lambda k, h: h + F.pad((h[:, :3] @ k.w[:3])[:, :4], (0, 2)) * 0.0,
    "a number of it": lambda k, h: h * (1 + float((k.b(h) * 0.0).sum())) + k.c(h) * 0.0,
    "without gradient": lambda k, h: h + k.b(h).detach() * 0.0 + k.c(h) * 0.0,
    "zeros like it": lambda k, h: (lambda y: h + torch.ones_like(y) + y * 0.0)(k.b(h)),
}


@pytest.mark.parametrize("name", [*SKIPPED, *RUN])
@pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
def test_whatever_is_skipped(name: str, batch_norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Branches({**SKIPPED, **RUN}[name]).double()
    x, labels = torch.randn(B, D, dtype=torch.float64), torch.arange(B) % CLASSES
    before = torch.get_rng_state()

    def run() -> Statistics:
        return collect(model, x, labels, needs=NEEDS, batch_norm=batch_norm, seed=3)

    same(*both(run, monkeypatch))
    assert torch.equal(before, torch.get_rng_state())
    same(*both(run, monkeypatch))  # by what is remembered


def test_hooks_see_what_they_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Branches(SKIPPED["a branch"]).double()
    x, labels = torch.randn(B, D, dtype=torch.float64), torch.arange(B) % CLASSES
    seen: list[Tensor] = []
    model.b.register_forward_hook(lambda m, i, y: seen.append(y))
    same(*both(lambda: collect(model, x, labels, needs=NEEDS), monkeypatch))
    assert not any(y.is_meta for y in seen)


def test_calls_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a dead branch only the forward of two samples runs, and of a second model of its kind nothing."""
    made: list[int] = []
    original = _dead_parts._skipped
    monkeypatch.setattr(
        _dead_parts, "_skipped", lambda r, step: (made.append(len(step.uses)), original(r, step))[1]
    )
    x, labels = torch.randn(B, D), torch.arange(B) % CLASSES
    for _ in range(2):
        collect(Branches(SKIPPED["a branch"]), x, labels, needs=NEEDS)
    assert made == [1, 0, 1] * 2


def test_parts_that_nothing_reads_are_skipped_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unused(Branches):
        pass

    torch.manual_seed(0)
    model = Unused(lambda k, h: (k.c(k.b(h)), h)[1]).double()
    x, labels = torch.randn(B, D, dtype=torch.float64), torch.arange(B) % CLASSES
    first = collect(model, x, labels, needs=NEEDS)
    assert not _attempts._PLANS
    same(collect(model, x, labels, needs=NEEDS), first)
    assert len(plan().dead) == 2
