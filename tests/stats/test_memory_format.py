"""Passes run in the faster memory format; callers see their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas import proxies
from pynas.stats import Gradients, GradMoments, GradNorms, RunningGradMoments, collect
from pynas.stats.memory_format import _OWN_FORMAT, wants_channels_last

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS = [GradMoments(), GradNorms(), Gradients()]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6 * 49, 5)
        self.formats: list[bool] = []

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.b(torch.relu(self.a(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Viewing(Convolutional):
    """``view`` joins channels and pixels, which are not side by side in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(x.size(0), -1))


def data(size: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, size, size, generator=generator), torch.arange(6) % 5


def networks(*kinds: type[nn.Module]) -> list[nn.Module]:
    """With the same weights, in PyTorch's default format."""
    found = []
    for kind in kinds:
        torch.manual_seed(0)
        found.append(kind())
    _OWN_FORMAT.clear()
    return found


def seen(network: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (id(p), p.data_ptr(), p.stride(), p._version) for p in network.state_dict(keep_vars=True).values()
    ]


def test_results_are_in_the_callers_format() -> None:
    usual, last = networks(Convolutional, Convolutional)
    last.to(memory_format=torch.channels_last)
    x, y = data()
    before, formats = seen(usual), []
    usual.b.register_forward_hook(
        lambda m, i, y: formats.append(y.is_contiguous(memory_format=torch.channels_last))
    )
    found = collect(usual, x, y, needs=NEEDS)
    assert formats == [True]
    assert seen(usual) == before
    other = collect(last, x.contiguous(memory_format=torch.channels_last), y, needs=NEEDS)
    for network, result in ((usual, found), (last, other)):
        for name, p in network.named_parameters():
            assert result[Gradients][name].stride() == p.stride()
            assert result[GradMoments][name].abs.stride() == p.stride()
            assert result.weights[name].data_ptr() == p.data_ptr()
    for name in other[Gradients]:
        torch.testing.assert_close(found[Gradients][name], other[Gradients][name], check_stride=False)
        torch.testing.assert_close(found[GradNorms][name], other[GradNorms][name])


def test_running_moments_come_in_the_callers_format() -> None:
    (network,) = networks(Convolutional)
    found = collect(network, *data(), needs=[RunningGradMoments()], micro_batches=2)[RunningGradMoments]
    assert found["b.weight"].m2.stride() == network.b.weight.stride()
    assert found["b.weight"].count == 2


def test_a_network_that_needs_its_own_format() -> None:
    network, twin = networks(Viewing, Convolutional)
    x, y = data()
    before = seen(network)
    found, expected = (collect(m, x, y, needs=NEEDS) for m in (network, twin))
    assert seen(network) == before
    for name in expected[Gradients]:
        torch.testing.assert_close(found[Gradients][name], expected[Gradients][name])
        torch.testing.assert_close(found[GradNorms][name], expected[GradNorms][name])
    assert not wants_channels_last(network)  # not tried again
    assert not wants_channels_last(Viewing())
    assert wants_channels_last(twin)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_scores_of_a_network_that_needs_its_own_format(precision: Any) -> None:
    network, twin = networks(Viewing, Convolutional)
    before = seen(network)
    names = proxies.names()
    found, expected = (pynas.score(m, *data(), names, precision=precision) for m in (network, twin))
    assert seen(network) == before
    for name in names:
        assert found[name].status == expected[name].status, found[name].message
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-3, abs=1e-5, nan_ok=True), name
    again = pynas.score(network, *data(), names, precision=precision)
    assert {n: s.value for n, s in again.items()} == pytest.approx(
        {n: s.value for n, s in found.items()}, nan_ok=True
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_the_format_comes_back_whatever_happens(error: type[BaseException]) -> None:
    (network,) = networks(Convolutional)

    def fail(*_: Any) -> None:
        raise error

    network.norm.register_forward_hook(fail)
    before = seen(network)
    with pytest.raises(error):
        collect(network, *data(), needs=NEEDS)
    assert seen(network) == before
    assert not _OWN_FORMAT  # it fails in either


class Strided(Convolutional):
    """Reads values by their places in memory."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        size = y[0].numel()
        if self.how == "as_strided":
            return self.head(y.as_strided((len(y), size), (size, 1)))
        if self.how == "resize_":
            return self.head(y.detach().clone().resize_(len(y), size) * y.flatten(1).sign())
        return self.head(y.flatten(1) * (1 + (y.stride(1) > y.stride(3))))


@pytest.mark.parametrize("how", ["as_strided", "resize_", "stride"])
def test_places_in_memory_are_those_of_the_callers_format(how: str) -> None:
    torch.manual_seed(0)
    network, names = Strided(how).double(), ["snip", "zico", "synflow"]
    x, y = data()
    x = x.double()
    network.train()
    buffers = {k: v.clone() for k, v in network.state_dict().items()}
    loss = nn.functional.cross_entropy(network(x), y)
    weights = {n: p for n, p in network.named_parameters() if p.dim() > 1}
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    network.load_state_dict(buffers)
    _OWN_FORMAT.clear()
    found = pynas.score(network, x, y, names, precision="float64")
    expected = sum(
        float((w * g).detach().abs().sum())
        for w, g in zip(weights.values(), gradients, strict=True)
        if g is not None
    )
    assert found["snip"].value == pytest.approx(expected, rel=1e-9)
    assert found["synflow"].status == "ok", found["synflow"].message
    assert not wants_channels_last(network)


def test_flow_of_a_network_that_needs_its_own_format() -> None:
    """Its error in the other one was passed on, as one that says what to do."""
    network, twin = networks(Viewing, Convolutional)
    _OWN_FORMAT.clear()
    found, expected = (pynas.score(m, *data(), ["synflow"])["synflow"] for m in (network, twin))
    assert found.status == "ok", found.message
    assert found.value == pytest.approx(expected.value, rel=1e-6)


class SameTwice(Convolutional):
    """Does something else where both inputs are one."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * (2 if x is other else 1)


def test_an_input_that_is_given_twice_stays_one() -> None:
    (network,) = networks(SameTwice)
    x, y = data()
    loss = nn.functional.cross_entropy(network(x, x), y)
    expected = torch.autograd.grad(loss, network.head.weight)[0]
    found = collect(network, (x, x), y, needs=[Gradients()])[Gradients]["head.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    score = pynas.score(network, (x, x), y, ["grad_norm"], precision="float64")["grad_norm"]
    assert score.layers["head.weight"] == pytest.approx(float(expected.norm()), rel=1e-4)


def test_complex_inputs_come_in_the_precision_asked_for() -> None:
    seen = []

    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.dtype)
            return self.head(x.abs())

    x = torch.randn(6, 4, dtype=torch.complex64)
    assert (
        pynas.score(Spectrum(), x, torch.arange(6) % 3, ["snip"], precision="float64")["snip"].status == "ok"
    )
    assert set(seen) == {torch.complex128}
