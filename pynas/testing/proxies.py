"""The conformance suite of proxies, for pynas's own and for yours.

Each check takes a proxy (and a :class:`Case`) and raises AssertionError with the reason. With pytest::

    @pytest.mark.parametrize("case", pynas.testing.proxies.CASES, ids=lambda case: case.name)
    @pytest.mark.parametrize("check", pynas.testing.proxies.CHECKS, ids=lambda check: check.__name__)
    def test_my_proxy(check, case):
        check(MyProxy(), case)
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from pynas._plural import counted
from pynas.evaluate import Score, score
from pynas.proxies import Proxy

CLASSES = 5
BATCH = 8
LossFn = Callable[[Any, Any], Tensor]


def _labels() -> Tensor:
    return torch.arange(BATCH) % CLASSES


@dataclass(frozen=True)
class Case:
    """A small network, data for it, and its loss.

    Attributes:
        targets: Class labels [BATCH] if None.
        loss_fn: Mean cross-entropy if None.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    targets: Callable[[], Any] | None = None
    loss_fn: LossFn | None = None

    def make(self, seed: int = 0) -> tuple[nn.Module, Any, Any]:
        """Seeded model, inputs and targets; does not change the caller's random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(), self.inputs(), (self.targets or _labels)()

    def suits(self, proxy: Proxy) -> bool:
        """Whether the proxy is defined here; if not, its status must say why."""
        tokens = isinstance(self.inputs(), Tensor) and not self.inputs().is_floating_point()
        return not (proxy.needs_labels and self.targets) and not (proxy.needs_floating_inputs and tokens)

    def score(self, proxy: Proxy, model: nn.Module, x: Any, y: Any, **options: Any) -> Score:
        """The score of one proxy with the case's loss."""
        return score(model, x, y, [proxy], loss_fn=self.loss_fn, **options)[proxy.name]


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
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation=nn.ReLU(), batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


class _Dense(nn.Module):
    """Two maps of the image's size, with a skip, in-place activations and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.skip = nn.Conv2d(3, 4, 1, bias=False)
        self.heads = nn.ModuleList(nn.Conv2d(4, c, 1) for c in (1, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.up(self.down(x))
        y += self.skip(x)
        return tuple(head(nn.functional.relu(y)) for head in self.heads)


def _two_maps(outputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> Tensor:
    depth, classes = outputs
    distance = nn.functional.l1_loss(depth.float(), targets[0])
    return distance + 0.5 * nn.functional.cross_entropy(classes.float(), targets[1])


class _LanguageModel(nn.Module):
    """Causal attention between a tied embedding and its transpose; predictions [B, T, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.positions = nn.Parameter(torch.randn(6, 8) / 10)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation=nn.ReLU(), batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=self.embedding.weight.dtype)
        x = self.embedding(tokens) + self.positions
        return self.head(self.norm(self.layer(x, mask)))  # type: ignore[no-any-return]


def _next_token(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.float().flatten(0, 1), targets.flatten())


CASES = (
    Case("conv", _conv, lambda: torch.randn(BATCH, 3, 8, 8)),
    Case("mlp", _mlp, lambda: torch.randn(BATCH, 12)),
    Case("transformer", _Transformer, lambda: torch.randn(BATCH, 6, 8)),
    Case(
        "dense prediction",
        _Dense,
        lambda: torch.randn(BATCH, 3, 8, 8),
        lambda: (torch.rand(BATCH, 1, 8, 8), torch.randint(3, (BATCH, 8, 8))),
        _two_maps,
    ),
    Case(
        "language model",
        _LanguageModel,
        lambda: torch.randint(11, (BATCH, 6)),
        lambda: torch.randint(11, (BATCH, 6)),
        _next_token,
    ),
)


def is_finite(proxy: Proxy, case: Case) -> None:
    """An ordinary network has a finite score in each precision, or a message if it cannot have one."""
    model, x, y = case.make()
    if not case.suits(proxy):
        found = case.score(proxy, model, x, y)
        assert found.status == "failed", f"{proxy.name}: {found.value} of data that it is not defined for"
        assert len(found.message) > len("ValueError: "), f"{proxy.name} fails without a reason"
        return
    for precision in ("float32", "bfloat16", "float64"):
        found = case.score(proxy, model, x, y, precision=precision)
        assert found.status == "ok", f"{proxy.name} in {precision}: {found.status}, {found.message}"
        assert math.isfinite(found.value)


def leaves_the_model_alone(proxy: Proxy, case: Case) -> None:
    """Weights, buffers, gradients, modes and random state are unchanged."""
    model, x, y = case.make()
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    case.score(proxy, model, x, y)
    for (name, before), after in zip(twin.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(before, after), f"{proxy.name} changed {name}"
    assert all(p.grad is None and p.requires_grad for p in model.parameters()), f"{proxy.name} left gradients"
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()], (
        f"{proxy.name} left a mode"
    )
    assert torch.equal(state, torch.get_rng_state()), f"{proxy.name} moved the random state"


def repeats(proxy: Proxy, case: Case) -> None:
    """The same model, data and seed give the same score, whatever the random state."""
    model, x, y = case.make()
    first = case.score(proxy, model, x, y, seed=3).value
    torch.rand(5)
    second = case.score(proxy, model, x, y, seed=3).value
    assert first == second or not case.suits(proxy), f"{proxy.name}: {first} and then {second}"


def layers_add_up(proxy: Proxy, case: Case) -> None:
    """If the score is a sum over layers, the layers add up to it."""
    model, x, y = case.make()
    found = case.score(proxy, model, x, y)
    if type(proxy).score is Proxy.score and case.suits(proxy):
        assert math.isclose(math.fsum(found.layers.values()), found.value, rel_tol=1e-12)
        assert found.layers


def keeps_nothing_alive(proxy: Proxy, case: Case) -> None:
    """No activation outlives the score: cycles through autograd's nodes are never collected."""
    model, x, y = case.make()
    held: list[StorageWeakRef] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            held.append(StorageWeakRef(output.untyped_storage()))  # type: ignore[no-untyped-call]

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    case.score(proxy, model, x, y)
    for hook in hooks:
        hook.remove()
    gc.collect()
    alive = sum(not reference.expired() for reference in held)  # type: ignore[no-untyped-call]
    assert alive == 0, f"{proxy.name} keeps {alive:,} of {counted(len(held), 'activation')}"


CHECKS: tuple[Callable[[Proxy, Case], None], ...] = (
    is_finite,
    leaves_the_model_alone,
    repeats,
    layers_add_up,
    keeps_nothing_alive,
)
