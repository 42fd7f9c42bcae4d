"""Gradients of whole batches where no sample's own gradient can be told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.stats import Gradients, GradNorms, RunningGradMoments, UnsupportedLayerError, collect
from pynas.stats._attempts import Attempts
from tests.stats.any_models import CLASSES, MODELS, Headed

LABELS = torch.arange(6) % CLASSES


class Mixup(Headed):
    """Each sample is mixed with its neighbour."""

    def make(self) -> None:
        self.inner = nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        return self.inner(0.7 * x + 0.3 * x.roll(1, 0))


class Centred(Mixup):
    """Features without their mean over the batch."""

    def body(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return y - y.mean(0)


class Conditioned(Mixup):
    """The weight of a layer is computed from the mean of the batch."""

    def make(self) -> None:
        super().make()
        self.hyper = nn.Linear(8, 64)

    def body(self, x: Tensor) -> Tensor:
        return F.linear(self.inner(x), self.hyper(x.mean(0)).view(8, 8))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, hidden: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        if hidden:
            return torch.from_numpy(x.detach().numpy() @ weight.detach().numpy() ** 2)
        return x @ weight.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        return grad @ weight.square().T, 2 * weight * (x.T @ grad), None


class Written(Headed):
    """A weight that only a function of the model's own sees."""

    hidden = True

    def make(self) -> None:
        self.own = nn.Parameter(torch.randn(8, 8) / 3)

    def body(self, x: Tensor) -> Tensor:
        return Square.apply(x, self.own, self.hidden)


COUPLED = [Mixup, Centred, Conditioned]


def whole(network: nn.Module, x: Any, needs: Any, passes: int = 1, batch_norm: str = "batch") -> Any:
    batch = len(LABELS)
    return Attempts(network, x, LABELS, None, needs, batch, 1, batch_norm, passes, ())._whole()


@pytest.mark.parametrize("parameters", ["all", "weights"])
@pytest.mark.parametrize("name", MODELS)
def test_counts_what_samples_count(name: str, parameters: Any) -> None:
    torch.manual_seed(0)
    kind, make = MODELS[name]
    network, x = kind().double(), make(6)
    needs = [Gradients(parameters=parameters)]
    known = collect(network, x, LABELS, needs=[*needs, GradNorms(parameters=parameters)])
    found = whole(network, x, needs)
    assert found.losses == pytest.approx(known.losses, rel=1e-12)
    assert found.matrices == known.matrices
    assert not found.missed
    unknown = set(found[Gradients]) ^ set(known[Gradients])
    assert all(not s[Gradients][n].any() for n in unknown for s in (found, known) if n in s[Gradients])
    for key in set(found[Gradients]) & set(known[Gradients]):
        torch.testing.assert_close(found[Gradients][key], known[Gradients][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", COUPLED)
def test_samples_that_depend_on_each_other(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = kind().double(), torch.randn(6, 8, dtype=torch.float64)
    with pytest.raises(UnsupportedLayerError):
        collect(network, x, LABELS, needs=[GradNorms()])
    expected = torch.autograd.grad(F.cross_entropy(network(x), LABELS), list(network.parameters()))
    found = collect(network, x, LABELS, needs=[Gradients()])[Gradients]
    for (name, _), gradient in zip(network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", COUPLED)
def test_scores(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = kind().double(), torch.randn(6, 8, dtype=torch.float64)
    scores = pynas.score(network, x, LABELS, ["snip", "zico", "grad_norm", "plain"], precision="float64")
    assert {s.status for s in scores.values()} == {"ok"}, scores
    weights = {n: p for n, p in network.named_parameters() if p.dim() > 1}

    def gradients(part: slice) -> dict[str, Tensor]:
        loss = F.cross_entropy(network(x[part]), LABELS[part])
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    g = gradients(slice(None))
    assert scores["snip"].value == pytest.approx(
        sum(float((g[n] * w).detach().abs().sum()) for n, w in weights.items()), rel=1e-9
    )
    a, b = gradients(slice(3)), gradients(slice(3, 6))
    zico = 0.0
    for name in weights:
        rows = torch.stack([a[name], b[name]])
        deviation, mean = rows.std(0, correction=0), rows.abs().mean(0)
        kept = deviation != 0
        zico += float((mean[kept] / deviation[kept]).sum().log())
    assert scores["zico"].value == pytest.approx(zico, rel=1e-6)


def test_batch_norm_by_the_batch_whatever_its_mode() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Centred(), nn.BatchNorm1d(CLASSES)).double().eval()
    x = torch.randn(6, 8, dtype=torch.float64)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for batch_norm in ("batch", "frozen"):
        found = collect(network, x, LABELS, needs=[Gradients()], batch_norm=batch_norm)[Gradients]
        twin = Centred().double()
        twin.load_state_dict(network[0].state_dict())
        norm = nn.BatchNorm1d(CLASSES).double().train(batch_norm == "batch")
        F.cross_entropy(norm(twin(x)), LABELS).backward()
        torch.testing.assert_close(found["0.inner.weight"], twin.inner.weight.grad)
        torch.testing.assert_close(found["1.weight"], norm.weight.grad)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    with pytest.raises(UnsupportedLayerError):
        collect(network, x, LABELS, needs=[Gradients()], batch_norm="group", group_size=2)


def test_a_weight_that_only_the_second_part_uses() -> None:
    class Later(Centred):
        def make(self) -> None:
            super().make()
            self.table = nn.Parameter(torch.randn(6, 8))

        def body(self, x: Tensor) -> Tensor:
            y = super().body(x)
            return y @ self.table[:, :8].T @ self.table if x[0, 0] > 0 else y + self.table[0]

    torch.manual_seed(0)
    network, x = Later().double(), torch.randn(6, 8, dtype=torch.float64)
    x[:, 0] = torch.tensor([-1.0] * 3 + [1.0] * 3)
    found = collect(network, x, LABELS, needs=[RunningGradMoments(parameters="weights")], micro_batches=2)
    assert found[RunningGradMoments]["table"].count == 2


def test_what_cannot_be_watched() -> None:
    torch.manual_seed(0)
    network, x = Written().double(), torch.randn(6, 8, dtype=torch.float64)
    expected = torch.autograd.grad(F.cross_entropy(network(x), LABELS), network.own)[0]
    found = collect(network, x, LABELS, needs=[Gradients()])
    torch.testing.assert_close(found[Gradients]["own"], expected)
    assert found.missed == {"own"}
    score = pynas.score(network, x, LABELS, ["snip"], precision="float64")["snip"]
    assert score.status == "partial"
    assert "own" in score.message
    network.hidden = False  # calls inside of the function are seen
    score = pynas.score(network, x, LABELS, ["snip"], precision="float64")["snip"]
    assert score.status == "ok"
    assert score.layers["own"] == pytest.approx(float((expected * network.own).detach().abs().sum()))


def test_a_penalty_is_no_samples() -> None:
    network = Centred()

    def penalised(y: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(y, targets) + network.inner.weight.norm()

    with pytest.raises(UserError, match="a penalty on weights"):
        collect(network, torch.randn(6, 8), LABELS, penalised, needs=[Gradients()])
