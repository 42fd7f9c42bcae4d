"""Which weights sums over weights count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import pynas
from pynas import proxies
from pynas._errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
OVER_WEIGHTS = sorted(name for name in proxies.names() if proxies.get(name).over_weights)


class Mixed(nn.Module):
    """Weights in modules that published code looks at, and elsewhere."""

    def __init__(self, more: bool) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.more = more
        if more:
            self.depth = nn.Conv1d(8, 8, 1)
            self.own = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).flatten(2)
        x = torch.relu(self.depth(x)).mean(2) @ self.own if self.more else x.mean(2)
        return self.head(x)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 6, 6, generator=generator), torch.arange(6) % 5


@pytest.mark.parametrize("name", OVER_WEIGHTS)
def test_published_code_sees_convolutions_and_linear_layers(name: str) -> None:
    torch.manual_seed(0)
    network = Mixed(more=True)
    x, y = data()
    whole = pynas.score(network, x, y, [name])[name]
    found = pynas.score(network, x, y, [name], weights="published")[name]
    assert set(whole.layers) == {"conv.weight", "depth.weight", "own", "head.weight"}
    assert found.layers == {n: v for n, v in whole.layers.items() if n in ("conv.weight", "head.weight")}
    assert (found.status, found.coverage) == ("ok", 1)
    if not name.startswith("synflow"):  # the logarithm of a sum
        assert found.value == pytest.approx(sum(found.layers.values()))
    simple = Mixed(more=False)
    assert (
        pynas.score(simple, x, y, [name], weights="published")[name].value
        == pynas.score(simple, x, y, [name])[name].value
    )


def test_other_proxies_do_not_care() -> None:
    network, (x, y) = Mixed(more=True), data()
    names = sorted(set(proxies.names()) - set(OVER_WEIGHTS))
    found, other = (pynas.score(network, x, y, names, weights=w) for w in ("any", "published"))
    assert {n: s.value for n, s in found.items()} == pytest.approx(
        {n: s.value for n, s in other.items()}, nan_ok=True
    )


def test_a_computed_weight_is_the_attribute_of_its_layer() -> None:
    network = nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(108, 8)), nn.ReLU(), nn.Linear(8, 5))
    for score in pynas.score(network, *data(), ["snip", "l2_norm"], weights="published").values():
        assert set(score.layers) == {"1.weight", "3.weight"}


def test_a_tied_weight_is_found_by_the_layer_that_multiplies() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    found = pynas.score(Tied(), torch.arange(24).view(6, 4) % 11, data()[1], ["snip"], weights="published")
    assert set(found["snip"].layers) == {"table.weight"}


def test_a_wrong_choice_is_named() -> None:
    with pytest.raises(UserError, match="weights: expected one of any, published, got 'all'"):
        pynas.score(Mixed(more=False), *data(), ["snip"], weights="all")  # type: ignore[arg-type]
