"""Recurrent layers and cells against the gradients of single samples by autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import stats_models as models
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import pynas
from pynas._errors import UserError
from pynas.stats import (
    ChannelSaliency,
    GradGram,
    Gradients,
    GradMoments,
    GradNorms,
    InputGradients,
    collect,
)
from pynas.stats._recurrent_rules import RECURRENT_RULES
from pynas.stats._rules import RULES

ALL = ("sum", "abs", "square", "sign", "centered")
LAYERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "deep": {"num_layers": 2, "batch_first": True},
    "deep, both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False, "bidirectional": True},
}
CASES = [(kind, form) for kind in LAYERS for form in FORMS]
PROJECTED = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for func, rule in RECURRENT_RULES.items():
        monkeypatch.setitem(RULES, func, rule)


def last_and_first(y: Tensor, h: Tensor) -> Tensor:
    return y[:, -1] + 0.5 * y[:, 0].tanh()


def everything(y: Tensor, h: Tensor) -> Tensor:
    weights = torch.linspace(-1, 2, y.shape[1], dtype=y.dtype).unsqueeze(1)
    return (y.square() * weights).sum(1) + h


def everything_there(y: Tensor, h: Tensor) -> Tensor:
    """Of padded outputs, whatever their length."""
    return y.square().sum(1) + h


class Network(nn.Module):
    """A recurrent layer between linear ones; the first also makes its states if ``given``."""

    def __init__(
        self,
        kind: str,
        use: Callable[[Tensor, Tensor], Tensor] = last_and_first,
        given: bool = False,
        times: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        layer, more = LAYERS[kind]
        self.inner = nn.Linear(3, 4)
        self.rnn = layer(4, 5, **options, **more)
        directions = 2 if self.rnn.bidirectional else 1
        self.width = directions * (self.rnn.proj_size or 5)
        self.again = nn.Linear(self.width, 4) if times > 1 else None
        self.head = nn.Linear(self.width, models.CLASSES)
        self.given, self.times, self.use = given, times, use
        if given:
            self.state = nn.ModuleList(
                nn.ModuleList(nn.Linear(3, size) for _ in range(self.rnn.num_layers * directions))
                for size in ((self.rnn.proj_size or 5), 5)[: 2 if kind == "lstm" else 1]
            )

    def states(self, x: Tensor) -> Any:
        if not self.given:
            return None
        found = [torch.stack([torch.tanh(linear(x[:, 0])) for linear in part]) for part in self.state]
        return tuple(found) if len(found) > 1 else found[0]

    def run(self, x: Tensor, states: Any) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1), states)
        h = sum(t.mean(2).sum(0) for t in h) if isinstance(h, tuple) else h.mean(2).sum(0)
        return (y if self.rnn.batch_first else y.transpose(0, 1)), h.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        states = self.states(x)
        x = self.inner(x)
        for _ in range(self.times):
            y, h = self.run(x, states)
            x = y if self.again is None else torch.tanh(self.again(y))
        return self.head(self.use(y, h))


class Packed(Network):
    """Its sequences end where the input becomes zero."""

    def __init__(self, *args: Any, enforce_sorted: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.enforce_sorted = enforce_sorted

    def pack(self, x: Tensor, lengths: Tensor) -> PackedSequence:
        x = x if self.rnn.batch_first else x.transpose(0, 1)
        return pack_padded_sequence(x, lengths, self.rnn.batch_first, self.enforce_sorted)

    def forward(self, x: Tensor) -> Tensor:
        states, lengths = self.states(x), (x.abs().sum(2) > 0).sum(1)
        packed, h = self.rnn(self.pack(self.inner(x), lengths), states)
        assert isinstance(packed, PackedSequence)
        y, _ = pad_packed_sequence(packed, batch_first=True)
        h = sum(t.mean(2).sum(0) for t in h) if isinstance(h, tuple) else h.mean(2).sum(0)
        return self.head(self.use(y, h.unsqueeze(1)))


def data(batch: int = 6, length: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, models.CLASSES, (batch,), generator=generator)


def ragged(lengths: tuple[int, ...] = (2, 5, 1, 3, 5, 2)) -> tuple[Tensor, Tensor]:
    x, y = data(len(lengths), max(lengths))
    for row, n in zip(x, lengths, strict=True):
        row[n:] = 0
    return x, y


def check(model: nn.Module, x: Tensor, y: Tensor, group_size: int = 1) -> None:
    """Every statistic of every parameter equals what explicit gradients give."""
    torch.manual_seed(1)
    model.double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    moments = ALL if len(x) > group_size else ALL[:4]
    needs = [GradMoments(moments), GradNorms(), GradGram(), Gradients()]
    found = collect(model, x, y, needs=needs, group_size=group_size)
    expected = models.per_sample(model, x, y, group_size)
    assert set(expected) == set(found[GradMoments])
    for name, g in expected.items():
        m = found[GradMoments][name]
        assert m.count == len(g)
        for value, reference in (
            (m.sum, g.sum(0)),
            (m.abs, g.abs().sum(0)),
            (m.square, g.square().sum(0)),
            (m.centered if "centered" in moments else g[0] * 0, (g - g.mean(0)).square().sum(0)),
            (found[Gradients][name], g.sum(0)),
            (found[GradNorms][name], g.flatten(1).square().sum(1)),
            (found[GradGram][name], g.flatten(1) @ g.flatten(1).T),
        ):
            torch.testing.assert_close(
                value, reference, rtol=1e-9, atol=1e-13, msg=lambda s, n=name: f"{n}: {s}"
            )
        clear = (g.abs() > 1e-12).all(0) | (g == 0).all(0)
        assert torch.equal(m.sign[clear], g.sign().sum(0)[clear]), name


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_layers(kind: str, form: str) -> None:
    check(Network(kind, **FORMS[form]), *data())


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_groups_and_states(kind: str, given: bool) -> None:
    check(Network(kind, everything, given, num_layers=2, bidirectional=True), *data(), group_size=2)


@PROJECTED
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_projections(form: str, given: bool) -> None:
    check(Network("lstm", everything, given, proj_size=3, **FORMS[form]), *data())


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_as_many_steps_as_samples(kind: str, batch_first: bool) -> None:
    check(Network(kind, given=True, batch_first=batch_first), *data(4, 4))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("batch", "length"), [(6, 1), (1, 4), (1, 1)])
def test_one_of_them(kind: str, batch: int, length: int) -> None:
    check(Network(kind, given=True, bidirectional=True), *data(batch, length))


@pytest.mark.parametrize("use", [lambda y, h: y[:, -1], lambda y, h: h.expand(-1, y.shape[2])])
@pytest.mark.parametrize("kind", LAYERS)
def test_only_the_last(kind: str, use: Callable[[Tensor, Tensor], Tensor]) -> None:
    check(Network(kind, use, bidirectional=True), *data())


@pytest.mark.parametrize("kind", LAYERS)
def test_only_the_state(kind: str) -> None:
    class State(Network):
        def forward(self, x: Tensor) -> Tensor:
            _, h = self.rnn(self.inner(x).transpose(0, 1))
            return self.head(h[1][0] if isinstance(h, tuple) else h[0])

    check(State(kind), *data())


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_called_twice(kind: str) -> None:
    check(Network(kind, everything, given=True, times=2, bidirectional=True), *data(), group_size=2)


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_changed_in_place(kind: str) -> None:
    class Changed(Network):
        def forward(self, x: Tensor) -> Tensor:
            y, h = self.rnn(self.inner(x).transpose(0, 1))
            state = h[0] if isinstance(h, tuple) else h
            state.mul_(2)
            if kind != "lstm":  # which PyTorch refuses
                y.mul_(2)
            return self.head(y[-1] + state[0])

    check(Changed(kind), *data())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_cells(kind: str, bias: bool) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(kind, nn.RNNCell)
            self.inner = nn.Linear(3, 4)
            self.cell = cell(4, 5, bias, **LAYERS[kind][1])
            self.state = nn.Linear(3, 5)
            self.head = nn.Linear(5, models.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            h: Any = self.state(x[:, -1])
            h = (h, torch.tanh(h)) if kind == "lstm" else h
            for t in range(x.shape[1]):
                h = self.cell(self.inner(x[:, t]), h)
            return self.head(h[0] * h[1] if kind == "lstm" else h)

    check(Loop(), *data(), group_size=2)
    check(Loop(), *data(3, 3))


def test_a_cell_without_given_state() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTMCell(3, 5), nn.Linear(5, models.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x[:, 0])[0])

    check(Once(), *data())


# -- Packed sequences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed(kind: str, form: str, given: bool) -> None:
    check(Packed(kind, everything_there, given, **FORMS[form]), *ragged())


@PROJECTED
@pytest.mark.parametrize("form", FORMS)
def test_packed_projections(form: str) -> None:
    check(Packed("lstm", everything_there, given=True, proj_size=3, **FORMS[form]), *ragged(), group_size=2)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lengths", [(5, 4, 4, 2), (3, 3, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_orders(kind: str, lengths: tuple[int, ...], enforce_sorted: bool) -> None:
    if enforce_sorted and lengths[0] < lengths[-1]:
        return
    model = Packed(kind, everything_there, enforce_sorted=enforce_sorted, num_layers=2, bidirectional=True)
    check(model, *ragged(lengths))


def test_packed_layers_one_after_the_other() -> None:
    class Stacked(Packed):
        def __init__(self) -> None:
            super().__init__("gru")
            self.second = nn.LSTM(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            lengths = (x.abs().sum(2) > 0).sum(1)
            packed, _ = self.rnn(self.pack(self.inner(x), lengths))
            _, (h, c) = self.second(packed)
            return self.head(h[0] * c[0])

    check(Stacked(), *ragged())


class SortedByHand(Packed):
    """As models did before PyTorch sorted for them."""

    def order(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x) * (x.abs().sum(2, keepdim=True) > 0)
        lengths, places = self.order((x.abs().sum(2) > 0).sum(1))
        packed, _ = self.rnn(self.pack(x[places], lengths))
        y, _ = pad_packed_sequence(packed, batch_first=True)
        return self.head(y[torch.argsort(places)].sum(1))


def test_sorted_by_hand() -> None:
    class Sorted(SortedByHand):
        def order(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
            found = lengths.sort(descending=True)
            return found.values, found.indices

    check(Sorted("lstm", enforce_sorted=True), *ragged())


def test_an_order_that_cannot_be_known() -> None:
    class Hidden(SortedByHand):
        def order(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
            places = torch.argsort(lengths, descending=True)
            return lengths[places], places

    with pytest.raises(UserError, match=r"samples that the model sorted itself.*enforce_sorted=False"):
        check(Hidden("lstm", enforce_sorted=True), *ragged())


def test_packed_before_the_pass() -> None:
    x, y = data(3, 4)
    packed = pack_padded_sequence(x.transpose(0, 1), torch.tensor([4, 2, 1]))

    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 5), nn.Linear(5, models.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(packed)[1][0])

    with pytest.raises(UserError, match="cannot be followed"):
        collect(Holding().double(), x, y, needs=[GradNorms()])


# -- What is asked of which parameters -------------------------------------------------------------------


def test_scores_see_recurrent_weights() -> None:
    torch.manual_seed(0)
    model, (x, y) = Network("lstm", num_layers=2), data()
    names = ["zico", "snip", "grad_norm"]
    model.double()
    for score in (whole := pynas.score(model, x, y, names, precision="float64")).values():
        assert score.status == "ok", score
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    loss = nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    values = [p.detach() for p in weights.values()]
    assert whole["grad_norm"].value == pytest.approx(sum(float(g.norm()) for g in gradients))
    assert whole["snip"].value == pytest.approx(
        sum(float((g * p).abs().sum()) for g, p in zip(gradients, values, strict=True))
    )
    for name in ("weight_ih_l0", "weight_hh_l1"):
        frozen = model.rnn.get_parameter(name)
        frozen.requires_grad_(False)
        for key, score in pynas.score(model, x, y, names, precision="float64").items():
            assert score.value != pytest.approx(whole[key].value, rel=1e-6), (name, key)
        frozen.requires_grad_(True)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("left", ["weight_ih_l0", "bias_hh_l0", "weight_hh_l0_reverse"])
def test_frozen_parameters(kind: str, left: str) -> None:
    model, (x, y) = Network(kind, bidirectional=True).double(), data()
    model.rnn.get_parameter(left).requires_grad_(False)
    found = collect(model, x, y, needs=[GradNorms()])[GradNorms]
    assert f"rnn.{left}" not in found
    model.requires_grad_(True)
    for name, g in models.per_sample(model, x, y).items():
        if name != f"rnn.{left}":
            torch.testing.assert_close(found[name], g.flatten(1).square().sum(1), rtol=1e-9, atol=1e-13)


def test_a_frozen_layer_hands_gradients_on() -> None:
    model, (x, y) = Network("gru").double(), data()
    model.rnn.requires_grad_(False)
    found = collect(model, x, y, needs=[GradNorms()])[GradNorms]
    assert set(found) == {"inner.weight", "inner.bias", "head.weight", "head.bias"}
    model.requires_grad_(True)
    expected = models.per_sample(model, x, y)["inner.weight"].flatten(1).square().sum(1)
    torch.testing.assert_close(found["inner.weight"], expected, rtol=1e-9, atol=1e-13)


def test_dropout_between_layers() -> None:
    """One seed drops the same elements with and without statistics."""
    for model, (x, y) in (
        (Network("gru", num_layers=3, dropout=0.5), data()),
        (Network("lstm", num_layers=3, dropout=0.5, batch_first=True), data()),
        (Packed("gru", num_layers=3, dropout=0.5, bidirectional=True), ragged()),
    ):
        model.double().train()
        found = collect(model, x, y, needs=[Gradients()], seed=3)[Gradients]
        torch.manual_seed(3)
        nn.functional.cross_entropy(model(x), y).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name], p.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", LAYERS)
def test_saliency_of_gates(kind: str) -> None:
    """sum_t a_bt dL/da_bt of the part that a weight makes is <W, g_b> + <b, its g_b>, by gate."""
    model, (x, y) = Network(kind, everything).double(), data()
    found = collect(model, x, y, needs=[ChannelSaliency()])[ChannelSaliency]
    rows = models.per_sample(model, x, y)
    for part in ("ih", "hh"):
        w, b = (model.rnn.get_parameter(f"{p}_{part}_l0").detach() for p in ("weight", "bias"))
        g, gb = (rows[f"rnn.{p}_{part}_l0"] for p in ("weight", "bias"))
        expected = ((w * g).sum(2) + b * gb).square().sum(0)
        torch.testing.assert_close(found[f"rnn.weight_{part}_l0"], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", LAYERS)
def test_single_precision_and_outputs_as_they_are(kind: str) -> None:
    torch.manual_seed(0)
    layer, options = LAYERS[kind]
    rnn, x = layer(4, 5, 2, batch_first=True, **options), torch.randn(6, 3, 4)
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = rnn, nn.Linear(5, models.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y, h = self.rnn(x)
            seen.extend((y.detach(), *((t.detach() for t in h) if isinstance(h, tuple) else (h.detach(),))))
            return self.head(y[:, -1])

    collect(Seeing(), x, torch.zeros(6, dtype=torch.int64), needs=[GradMoments()])
    y, h = rnn(x)
    wanted = (y, *h) if isinstance(h, tuple) else (y, h)
    # The last pass is that of the whole batch.
    for a, b in zip(seen[-len(wanted) :], wanted, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", LAYERS)
def test_two_backward_passes(kind: str) -> None:
    """What the first reads serves the second."""
    model, (x, y) = Network(kind, everything, num_layers=2, bidirectional=True).double(), data()
    found = collect(model, x, y, needs=[InputGradients(), Gradients()])
    alone = collect(model, x, y, needs=[Gradients()])[Gradients]
    for name, value in found[Gradients].items():
        torch.testing.assert_close(value, alone[name], rtol=1e-12, atol=1e-15)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(model(x).sum(), x)
    (rows,) = found[InputGradients].values()
    torch.testing.assert_close(rows, expected.flatten(1), rtol=1e-9, atol=1e-13)


def similarity(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), 0))


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast(kind: str) -> None:
    torch.manual_seed(0)
    model, (x, y) = Network(kind, everything, bidirectional=True), data()
    x = x.float()
    exact = collect(model, x, y, needs=[Gradients(), GradNorms()])
    with torch.autocast("cpu", torch.bfloat16):
        found = collect(model, x, y, needs=[Gradients(), GradNorms()])
    for statistic in (Gradients, GradNorms):
        assert set(found[statistic]) == set(exact[statistic])
        for name, value in found[statistic].items():
            assert similarity(value, exact[statistic][name]) > 0.99, name


@pytest.mark.parametrize("kind", ["gru", "tanh"])
def test_dtypes_under_autocast(kind: str) -> None:
    layer, options = LAYERS[kind]
    seen: list[list[torch.dtype]] = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = layer(3, 5, **options), nn.Linear(5, models.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y, h = self.rnn(x.transpose(0, 1))
            seen.append([y.dtype, h.dtype])
            return self.head(y[-1])

    model, (x, y) = Seeing(), data()
    for inputs in (x.float(), x.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            collect(model, inputs, y, needs=[GradNorms()])
            model(inputs)
        assert seen[-2] == seen[-1]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_half_precision(kind: str) -> None:
    torch.manual_seed(0)
    model, (x, y) = Network(kind, num_layers=2), data()
    exact = collect(model, x.float(), y, needs=[Gradients()])[Gradients]
    found = collect(model.bfloat16(), x.bfloat16(), y, needs=[Gradients()])[Gradients]
    for name, value in found.items():
        assert similarity(value, exact[name]) > 0.99, name


def test_samples_elsewhere() -> None:
    class Swapped(Network):
        def run(self, x: Tensor, states: Any) -> tuple[Tensor, Tensor]:
            y = self.rnn(x, states)[0]
            return y, y[:, 0].mean(1, keepdim=True)

    with pytest.raises(UserError, match="depend on each other"):
        collect(Swapped("lstm").double(), *data(), needs=[GradNorms()])
