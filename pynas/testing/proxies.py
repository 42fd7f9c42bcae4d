"""What every proxy must do: checks to run on your own as pynas runs them on its own.

Each check takes a proxy (and a :class:`Case`) and raises AssertionError with the reason. With pytest::

    @pytest.mark.parametrize("case", pynas.testing.proxies.CASES, ids=lambda case: case.name)
    @pytest.mark.parametrize("check", pynas.testing.proxies.CHECKS, ids=lambda check: check.__name__)
    def test_my_proxy(check, case):
        check(MyProxy(), case)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pynas.evaluate import score
from pynas.proxies import Proxy

CLASSES = 5
BATCH = 8


@dataclass(frozen=True)
class Case:
    """A small network and data for it."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]

    def make(self, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
        """Seeded model, inputs and labels; the caller's random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(), self.inputs(), torch.arange(BATCH) % CLASSES


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


CASES = (
    Case("conv", _conv, lambda: torch.randn(BATCH, 3, 8, 8)),
    Case("mlp", _mlp, lambda: torch.randn(BATCH, 12)),
    Case("transformer", _Transformer, lambda: torch.randn(BATCH, 6, 8)),
)


def is_finite(proxy: Proxy, case: Case) -> None:
    """An ordinary network has a finite score, in each precision."""
    model, x, y = case.make()
    for precision in ("float32", "bfloat16", "float64"):
        found = score(model, x, y, [proxy], precision=precision)[proxy.name]
        assert found.status == "ok", f"{proxy.name} in {precision}: {found.status}, {found.message}"
        assert math.isfinite(found.value)


def leaves_the_model_alone(proxy: Proxy, case: Case) -> None:
    """Weights, buffers, gradients, modes and random state are those of before."""
    model, x, y = case.make()
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    score(model, x, y, [proxy])
    for (name, before), after in zip(twin.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(before, after), f"{proxy.name} changed {name}"
    assert all(p.grad is None and p.requires_grad for p in model.parameters()), f"{proxy.name} left gradients"
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()], (
        f"{proxy.name} left a mode"
    )
    assert torch.equal(state, torch.get_rng_state()), f"{proxy.name} moved the random state"


def repeats(proxy: Proxy, case: Case) -> None:
    """The same model, data and seed give the same score, whatever was drawn before."""
    model, x, y = case.make()
    first = score(model, x, y, [proxy], seed=3)[proxy.name].value
    torch.rand(5)
    second = score(model, x, y, [proxy], seed=3)[proxy.name].value
    assert first == second, f"{proxy.name}: {first} and then {second}"


def layers_add_up(proxy: Proxy, case: Case) -> None:
    """Where the score is a sum over layers, the layers add up to it."""
    model, x, y = case.make()
    found = score(model, x, y, [proxy])[proxy.name]
    if type(proxy).score is Proxy.score:
        assert math.isclose(math.fsum(found.layers.values()), found.value, rel_tol=1e-12)
        assert found.layers


CHECKS: tuple[Callable[[Proxy, Case], None], ...] = (
    is_finite,
    leaves_the_model_alone,
    repeats,
    layers_add_up,
)
