"""What callers hand over is theirs: inputs, targets, models and random states are as before, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pynas
from pynas import hardware, stats
from pynas._errors import UserError
from pynas.evaluate import ProxyEvaluator
from pynas.hardware._trace import trace
from pynas.proxies import names
from pynas.spaces import custom
from pynas.stats import weights
from pynas.supernet import SubnetEvaluator, score_network
from pynas.supernet._base import Segment, SharedWeights

CLASSES = 3


def by_data(x: Tensor) -> Tensor:
    x.data.mul_(2)
    return x


def by_index(x: Tensor) -> Tensor:
    x[:, 0] = x[:, 1]
    return x


def by_view(x: Tensor) -> Tensor:
    x.flatten().sub_(0.5)
    return x


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: F.relu(x, inplace=True),
    "arithmetic": lambda x: x.mul_(0.5).add_(1),
    "data": by_data,
    "index": by_index,
    "view": by_view,
}


class Writes(nn.Module):
    """A network that writes into its input first, counts its calls and draws from every generator."""

    def __init__(self, write: str = "relu") -> None:
        super().__init__()
        self.write = WRITES[write]
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, CLASSES)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.write(x)
        self.calls += 1
        if self.training:
            x = x + float(np.random.rand()) + random.random()  # noqa: NPY002
        x = F.relu(self.norm(self.conv(F.dropout(x, 0.1, self.training))))
        return self.head(x.mean((2, 3)))


def network(write: str = "relu") -> nn.Module:
    model = Writes(write)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.norm.eval()
    return model


class Shared(SharedWeights):
    """Two architectures behind one beginning; all of their segments write into what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.space = custom(lambda width: nn.Linear(width, 2), {"width": [1, 2]})
        self.parts = nn.ModuleList(network() for _ in range(2))
        self.stem = nn.Conv2d(3, 3, 1)

    def segments(self, arch: pynas.Architecture) -> tuple[Segment, ...]:
        (which,) = arch.decisions
        stem = Segment("stem", lambda x: self.stem(F.relu(x, inplace=True)), (self.stem,))
        return stem, Segment(which, self.parts[which], (self.parts[which],))

    def classifier(self) -> nn.Linear:
        return self.parts[0].head

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self.parts[0].head = layer


def masking(outputs: Tensor, targets: Tensor) -> Tensor:
    targets[targets == 2] = 0
    return F.cross_entropy(outputs, targets)


def by_score(*proxies: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> None:
        for name, score in pynas.score(model, x, y, proxies).items():
            assert score.status != "failed" or "linearly dependent" in score.message, f"{name}: {score}"

    return run


def by_collect(**options: Any) -> Callable[[nn.Module, Tensor, Tensor], None]:
    needs = [stats.GradMoments(), stats.GradNorms(), stats.Gradients(), stats.OutputGram()]
    return lambda model, x, y: stats.collect(model, x, y, needs=needs, **options) and None


def by_evaluator(model: nn.Module, x: Tensor, y: Tensor) -> None:
    space = custom(lambda width: Drawn(width), {"width": [2, 4]})
    evaluator = ProxyEvaluator(space, x, y, ["zico", "naswot", "params"])
    found = [evaluator(space.parse("width=2")).scores for _ in range(2)]
    assert found[0] == found[1]


class Drawn(nn.Module):
    """A network whose initial weights come from numpy and Python."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, CLASSES)
        with torch.no_grad():
            self.conv.weight.mul_(float(np.random.rand()) + random.random())  # noqa: NPY002

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(x, inplace=True))).mean((2, 3)))


def by_supernet(model: nn.Module, x: Tensor, y: Tensor) -> None:
    shared = Shared()
    archs = [shared.space.parse(f"width={w}") for w in (1, 2)]
    for calibration in (None, [x]):
        evaluator = SubnetEvaluator(shared, x, y, calibration=calibration, cache_size=0)
        assert evaluator(archs) == [evaluator([arch])[0] for arch in archs]


def by_profile(model: nn.Module, x: Tensor, y: Tensor) -> None:
    hardware.profile(model, x)
    hardware.macs(model, x)
    trace(model, x)


SCORED = set(names()) - {"naswot_published"}  # which looks at modules called ReLU; there are none here
ENTRIES: dict[str, Callable[[nn.Module, Tensor, Tensor], None]] = {
    **{f"score {name}": by_score(name) for name in names() if name in SCORED},
    "score together": by_score("zico", "naswot", "jacob_cov", "synflow", "grasp"),
    "collect": by_collect(),
    "collect by group": by_collect(group_size=2, batch_norm="group"),
    "collect under fallback": by_collect(fallback=("head",), training=False),
    "collect in parts": lambda model, x, y: (
        stats.collect(model, x, y, needs=[stats.RunningGradMoments()], micro_batches=2) and None
    ),
    "collect, own loss": by_collect(loss_fn=masking),
    "weights": lambda model, x, y: weights.weight_tensors(model, x) and None,
    "evaluator": by_evaluator,
    "supernet": by_supernet,
    "one network": lambda model, x, y: score_network(model, x, y) and None,
    "hardware": by_profile,
}
LEAVES_MODEL = set(ENTRIES) - {"one network"}  # that runs the network as the caller does


def state(model: nn.Module) -> list[Any]:
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    values = {name: t.clone() for name, t in model.state_dict().items()}
    return [values, [m.training for m in model.modules()], gradients]


def generators() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())]  # noqa: NPY002


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return all(map(same, a, b)) if isinstance(a, list) else a == b


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_all_is_left_as_it_was(entry: str, write: str) -> None:
    torch.manual_seed(0)
    model, x, y = network(write), torch.randn(6, 3, 6, 6), torch.arange(6) % CLASSES
    given, version, before = x.clone(), x._version, state(model)
    torch.manual_seed(1)
    drawn = generators()
    ENTRIES[entry](model, x, y)
    assert same(given, x)
    assert x._version == version
    assert torch.equal(y, torch.arange(6) % CLASSES)
    if entry in LEAVES_MODEL:
        assert generators() == drawn or entry in ("supernet",)  # whose test makes networks itself
        assert same(before, state(model))


class Reads(nn.Module):
    """The same network as with a ReLU of its own tensor first, which writes nothing."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(x, inplace=self.inplace))).mean((2, 3)))


@pytest.mark.parametrize("name", names())
def test_a_write_changes_no_score(name: str) -> None:
    x, y = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(3)), torch.arange(6) % CLASSES
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        found.append(pynas.score(Reads(inplace), x, y, ["zico", name])[name])
    assert found[0].status == found[1].status
    assert found[0].value == pytest.approx(found[1].value, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("run", [hardware.profile, hardware.macs, lambda m, x: hardware.params(m), trace])
def test_lazy_layers_have_no_size_yet(run: Callable[..., Any]) -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), torch.ones(2, 3)
    with pytest.raises(UserError, match=r"'1\.weight' is not initialised yet.*on a batch first"):
        run(model, x)
    model(x)
    assert run(model, x)


def test_spaces_of_lazy_networks() -> None:
    space = custom(lambda width: nn.Sequential(nn.Flatten(), nn.LazyLinear(width)), {"width": [2, 4]})
    arch = space.parse("width=2")
    for use in (space.build, space.params, space.macs, lambda a: hardware.profile_architecture(space, a)):
        with pytest.raises(UserError, match="take their sizes from the first batch; run it once"):
            use(arch)
