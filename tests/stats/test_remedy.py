"""Layers that pynas does not follow: what is recommended works, and what cannot work is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas._errors import UserError
from pynas.stats import GradNorms, collect
from tests.stats.any_models import Headed, features, parameter, tokens
from tests.stats.test_any_model import close, sample_gradients


class Routed(Headed):
    """Each sample goes to the expert that its gate picks."""

    def make(self) -> None:
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def body(self, x: Tensor) -> Tensor:
        p, index = self.gate(x).softmax(1).max(1)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            chosen = index == i
            if chosen.any():
                y[chosen] = expert(x[chosen]) * p[chosen, None]
        return y


class TokenExperts(nn.Module):
    """Each token goes to its two best experts, whose outputs are added at its place."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3, bias=False)
        self.up, self.down = parameter(3, 10, 8), parameter(3, 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 8)
        weights, chosen = self.gate(rows).softmax(-1).topk(2, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        mask = F.one_hot(chosen, 3).permute(2, 1, 0)
        y = torch.zeros_like(rows)
        for i in mask.sum((1, 2)).nonzero().flatten().tolist():
            slot, places = torch.where(mask[i])
            h = F.linear(torch.tanh(F.linear(rows[places], self.up[i])), self.down[i])
            y.index_add_(0, places, h * weights[places, slot, None])
        return y.view_as(x)


class RoutedTokens(Headed):
    """Two blocks of such experts in a list."""

    def make(self) -> None:
        self.blocks = nn.ModuleList(TokenExperts() for _ in range(2))

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class OneByOne(Headed):
    def make(self) -> None:
        self.mix = nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        return torch.stack([torch.tanh(self.mix(row)) for row in x])


@pytest.mark.parametrize("batch", [7, 8])
@pytest.mark.parametrize(
    ("kind", "make"),
    [(Routed, features), (RoutedTokens, tokens), (OneByOne, tokens)],
    ids=lambda v: v.__name__,
)
def test_what_is_recommended_works(kind: type[Headed], make: Callable[[int], Tensor], batch: int) -> None:
    torch.manual_seed(1)
    network, x, targets = kind().double(), make(batch), torch.arange(batch) % 3
    with pytest.raises(UserError) as refused:
        collect(network, x, targets, needs=[GradNorms()])
    found = re.search(r"pass fallback=(\(.*?,?\)) to take", str(refused.value))
    assert found, refused.value
    names = tuple(re.findall(r"'(.*?)'", found[1]))
    norms = collect(network, x, targets, needs=[GradNorms()], fallback=names)[GradNorms]
    for key, rows in sample_gradients(network, x, targets).items():
        close(norms[key], rows.flatten(1).square().sum(1), key)


class Keeps(nn.Module):
    """A cache of keys that grows with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.cache = parameter(8, 8), []

    def forward(self, x: Tensor) -> Tensor:
        self.cache.append(x @ self.weight)
        keys = torch.cat(self.cache, 1)
        return x @ keys.mT


class WritesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x.add_(1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Keeps, "a second run of layer 'a' on the same input|does not run a second time"),
        (WritesInput, "writes into its input"),
    ],
)
def test_layers_that_cannot_run_again(layer: type[nn.Module], message: str) -> None:
    class Network(Headed):
        width = 6 if layer is Keeps else 8

        def make(self) -> None:
            self.first, self.a = nn.Linear(8, 8), layer()

        def body(self, x: Tensor) -> Tensor:
            return self.a(self.first(x))

    torch.manual_seed(0)
    network, x, targets = Network().double(), tokens(4), torch.arange(4) % 3
    with pytest.raises(UserError, match=message):
        collect(network, x, targets, needs=[GradNorms()], fallback=("a",))


def test_a_whole_model_may_write_into_its_input() -> None:
    torch.manual_seed(0)
    network, x, targets = (
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 3)).double(),
        features(5),
        torch.arange(5) % 3,
    )
    given = x.clone()
    expected = collect(network, x, targets, needs=[GradNorms()])[GradNorms]
    found = collect(network, x, targets, needs=[GradNorms()], fallback=("",))[GradNorms]
    assert torch.equal(x, given)
    for key, norms in expected.items():
        close(found[key], norms, key)


class DrawsElsewhere(nn.Module):
    """Drops from numpy's or Python's generator."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.mix, self.draw = nn.Linear(8, 8), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) * (0.5 + self.draw())


@pytest.mark.parametrize("source", ["numpy", "random"])
def test_numbers_from_any_generator_are_noticed(source: str) -> None:
    import random

    import numpy as np

    draw = np.random.rand if source == "numpy" else random.random
    network = nn.Sequential(DrawsElsewhere(draw), nn.Linear(8, 3)).double()
    with pytest.raises(UserError, match="random numbers are drawn by layer '0'"):
        collect(network, features(4), torch.arange(4) % 3, needs=[GradNorms()], fallback=("0",))


def test_functions_that_ask_again_by_their_own_name() -> None:
    class Grid(Headed):
        def make(self) -> None:
            self.scale = parameter(6, 8)

        def body(self, x: Tensor) -> Tensor:
            rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
            return x * (self.scale * rows.to(x) + columns.to(x))

    torch.manual_seed(0)
    score = pynas.score(Grid(), torch.randn(4, 6, 8), torch.arange(4) % 3, ["synflow"])["synflow"]
    assert score.status == "ok", score.message


@pytest.mark.parametrize("batch", [4, 6])
def test_a_reshape_that_mixes_samples_but_for_one_size(batch: int) -> None:
    class Fold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.mix(x).transpose(0, 1).reshape(len(x), 6, 8))

    network, x, targets = Fold().double(), tokens(batch), torch.randn(batch, 6, 8, dtype=torch.float64)
    with pytest.raises(UserError, match=r"depend on each other|but not for other numbers of samples"):
        collect(network, x, targets, F.mse_loss, needs=[GradNorms()])


def test_outputs_with_time_first_have_their_samples_there() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x.transpose(0, 1))[0])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.permute(1, 2, 0), targets)

    torch.manual_seed(0)
    network, x, targets = TimeFirst().double(), tokens(6), torch.randint(3, (6, 6))
    found = collect(network, x, targets, loss, needs=[GradNorms()])[GradNorms]
    for name, p in network.named_parameters():
        rows = [
            torch.autograd.grad(loss(network(x[b : b + 1]), targets[b : b + 1]) / 6, p)[0] for b in range(6)
        ]
        close(found[name], torch.stack(rows).flatten(1).square().sum(1), name)
