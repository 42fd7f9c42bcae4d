from __future__ import annotations

import inspect
import math
import random

import pytest
from torch import nn

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware import TabularLatency, Task, profile_architecture
from pynas.hardware.costs import Costs
from pynas.run import search
from pynas.testing.strategies import ToySpace
from pynas.trial import Evaluation, Status

SMALL = spaces.get("nasbench201", channels=4, num_cells=1)
TOY = ToySpace(length=2, choices=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", spaces.names())
def test_profiles_of_every_space_count_what_the_closed_forms_say(name):
    space = spaces.get(name)
    arch = space.sample(random.Random(0))
    classes = inspect.signature(space.macs).parameters["num_classes"].default
    found = profile_architecture(space, arch, Task(image_size=space.image_size, prune=False))
    assert found.macs == space.macs(arch, image_size=space.image_size)
    assert found.params == space.params(arch, classes)
    assert found.memory > 0
    assert found.activations > 0
    assert found.intensity > 0


def test_costs_of_the_network_that_would_be_deployed():
    costs = Costs(SMALL, {"memory": 1e6}, wanted=["intensity"], image_size=8, num_classes=7)
    arch = SMALL.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    found = costs(arch)
    assert set(found) == {"params", "flops", "memory", "intensity"}
    profile = profile_architecture(SMALL, arch, Task(image_size=8, num_classes=7))
    assert (found["memory"], found["intensity"]) == (profile.memory, profile.intensity)
    assert costs.feasible(arch)
    assert profile.params < found["params"] == SMALL.params(arch, 7)  # tables count dead edges too


class Numbers(nn.Module):
    """Looks at values, which nothing on ``meta`` has; and does not run at all for negative scales."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        if self.scale < 0:
            raise RuntimeError("no such scale")
        y = self.conv(x)
        return (y * float(y.detach().abs().max())).mean((2, 3))


class Scales(ToySpace):
    def __init__(self):
        super().__init__(length=1, choices=2)

    def build(self, arch, num_classes=10, in_channels=3, prune=False):
        return Numbers(1 - 2 * arch.decisions[0])


def test_networks_that_look_at_numbers_and_networks_that_do_not_run():
    space = Scales()
    good, bad = space.all()
    costs = Costs(space, {"memory": 1e9}, image_size=8)
    assert costs(good)["memory"] == 4 * (3 * 64 + 2 * 4 * 36 + 4)  # image, convolution, product, mean
    assert math.isnan(costs(bad)["memory"])
    assert costs.feasible(good)
    assert not costs.feasible(bad)
    assert "not known for 1: RuntimeError: no such scale" in costs.explain()


@pytest.mark.slow
def test_search_within_a_memory():
    whole = search(SMALL, "random", ["-memory"], budget=8, image_size=8)
    sizes = sorted(trial.evaluation.metrics["memory"] for trial in whole.trials)
    bound = sizes[3]
    result = search(SMALL, "random", ["-memory"], {"memory": bound}, budget=3, image_size=8)
    assert all(trial.evaluation.metrics["memory"] <= bound for trial in result.trials)


def models(values):
    return TabularLatency(TOY, values, "phone")


def flat(architecture):
    return Evaluation(Status.OK, {"toy": 1.0 + sum(architecture.decisions)})


def test_unknown_latencies_are_never_feasible_and_fail_as_objectives():
    model = models([1, 2, -1, 4, math.nan, 6, 7, 8, 9])
    arguments = {"objectives": ["toy"], "evaluator": flat, "budget": 9, "hardware": [model]}
    result = search(TOY, "exhaustive", constraints={"latency": 100}, **arguments)
    assert all(math.isfinite(trial.evaluation.metrics["latency"]) for trial in result.trials)
    result = search(TOY, "exhaustive", **arguments | {"objectives": ["toy", "-latency:phone"]})
    messages = {t.evaluation.message for t in result.trials if t.evaluation.status is Status.FAILED}
    assert messages <= {
        "latency:phone is not known: phone does not support it",
        "latency:phone is not known: a table has no value for it",
    }
    assert messages
    assert result.run.config.config["hardware"][0]["name"] == "latency:phone"


def test_errors():
    with pytest.raises(UserError, match=r"latency <= 3 \(not known for .*: phone does not support it\)"):
        search(TOY, "random", ["toy"], {"latency": 3}, evaluator=flat, hardware=[models([-1] * 9)])
    with pytest.raises(UserError, match=r"constraint 'energy': unknown; known: .*give a source of latencies"):
        search(TOY, "random", ["toy"], {"energy": 3}, evaluator=flat, hardware=[models([1] * 9)])
    with pytest.raises(UserError, match="latency:phone is given twice"):
        search(TOY, "random", ["toy"], evaluator=flat, hardware=[models([1] * 9)] * 2)
    with pytest.raises(UserError, match="objectives: expected at least one name and none twice"):
        search(TOY, "random", ["toy", "-toy"], evaluator=flat)
    with pytest.raises(UserError, match="objectives: expected"):
        search(TOY, "random", ["-"], evaluator=flat)


def test_a_score_to_minimise():
    result = search(TOY, "exhaustive", ["-toy"], evaluator=flat, budget=6)
    assert result.best.evaluation.scores == {"toy": 1.0, "-toy": -1.0}


def test_many_objectives_do_not_wait_for_a_hypervolume() -> None:
    # Ranking by all proxies is a search with twenty objectives, where nearly every trial is on the front.
    rng, space = random.Random(0), spaces.get("nasbench201")
    names = [f"score{i}" for i in range(20)]

    def evaluate(architecture: Architecture) -> Evaluation:
        scores = {name: rng.random() for name in names}
        return Evaluation(Status.OK, scores=scores, metrics={"flops": 1.0, "params": 1.0})

    result = search(space, strategy="random", objectives=names, budget=200, evaluator=evaluate)
    assert len(result.pareto) > 150
    assert math.isnan(result.hypervolume)
    assert result.best is not None
