"""A model comes back bit for bit, also from a pass that fails."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.stats import GradMoments, RunningGradMoments, collect


class Net(nn.Module):
    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.sn = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.fail = fail

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        random.random()
        x = self.norm(self.conv(x * self.frozen.view(1, 3, 1, 1))).mean((2, 3))
        x = self.head(self.drop(self.sn(x)))
        if self.fail:
            raise RuntimeError("in the middle")
        return x


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "ids": [id(p) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__)
            for m in model.modules()
        ],
        "rng": torch.get_rng_state(),
        "python": random.getstate(),
    }


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    def equal(x: object, y: object) -> bool:
        if isinstance(x, Tensor):
            return torch.equal(x, y)
        if isinstance(x, dict):
            return all(equal(x[k], y[k]) for k in x)
        if isinstance(x, list):
            return len(x) == len(y) and all(map(equal, x, y))
        return x == y

    return equal(a, b)


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("batch_norm", ["batch", "group", "frozen"])
def test_untouched(batch_norm: str, training: bool | None) -> None:
    model, (x, y) = Net(), data()
    model.drop.eval()
    model(x).sum().backward()
    before = snapshot(model)
    options = {"batch_norm": batch_norm, "training": training, "fallback": ("sn",)}
    model.sn.eval()
    before = snapshot(model)
    collect(model, x, y, needs=[GradMoments()], group_size=2, **options)
    assert same(before, snapshot(model))


def test_untouched_after_a_failure() -> None:
    model, (x, y) = Net(fail=True), data()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        collect(model, x, y, needs=[GradMoments()], fallback=("sn",), training=False)
    assert same(before, snapshot(model))
    model.fail = False
    found = collect(model, x, y, needs=[GradMoments()], seed=3)[GradMoments]
    assert any(name.endswith("original") for name in found)  # what spectral norm computes a weight from
    assert same(before, snapshot(model))


def test_dropout_draws_from_the_seed() -> None:
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(108, 5)), data()
    runs = [
        collect(model, x, y, needs=[GradMoments()], seed=s)[GradMoments]["2.weight"].abs for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_forward_that_changes_its_weights_is_refused() -> None:
    class Renormalised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.div_(self.weight.norm())
            return super().forward(x)

    model, (x, y) = nn.Sequential(nn.Flatten(), Renormalised(108, 5)), data()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=r"changes parameter '1\.weight' in place"):
        collect(model, x, y, needs=[GradMoments()])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_buffers_over_several_passes() -> None:
    model, (x, y) = Net().eval(), data()
    before = snapshot(model)
    collect(model, x, y, needs=[RunningGradMoments(parameters="weights")], micro_batches=2)
    assert same(before, snapshot(model))
