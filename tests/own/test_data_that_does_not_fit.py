"""Labels, channels and dtypes that a model has no use for are explained alike wherever it runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pynas
from pynas._errors import UserError
from pynas.evaluate import ProxyEvaluator
from pynas.supernet import (
    SinglePath,
    SubnetEvaluator,
    Trainer,
    TrainingOptions,
    UniformSampler,
    build,
)
from pynas.supernet.shifting import Shifting, ShiftingOptions

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = pynas.spaces.get("nasbench201", channels=4, num_cells=1)
INPUTS = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(6) % 5


def network() -> nn.Module:
    return SPACE.build(SPACE.sample(random.Random(0)), num_classes=5)


def collect(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    pynas.stats.collect(network(), inputs, targets, needs=[pynas.stats.GradMoments()])


def train(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    options = TrainingOptions(batch_size=3, epochs=1)
    Trainer(build(SPACE, 5, 3), inputs, targets, SinglePath(UniformSampler(SPACE)), options).train()


def evaluate(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    SubnetEvaluator(build(SPACE, 5, 3), inputs, targets)([SPACE.sample(random.Random(0))])


def shift(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    model = build(SPACE, 5, 3)
    judge = SubnetEvaluator(model, INPUTS, TARGETS)
    Shifting(model, inputs, targets, judge, ShiftingOptions(batch_size=3, generations=1)).run()


def score(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    found = pynas.score(network(), inputs, targets, proxies=["snip"])["snip"]
    assert found.status == "failed"
    raise UserError(found.message)


PLACES = (collect, train, evaluate, shift, score)
WRONG = {
    "channels": (
        INPUTS[:, :1],
        TARGETS,
        "inputs: the images have 1 channel and the model reads 3",
    ),
    "uint8": ((255 * INPUTS).byte(), TARGETS, "inputs: images of uint8, which the model does not take"),
    "labels": (INPUTS, TARGETS + 1, "targets: labels go from 1 to 5, but the model has 5 outputs"),
    "negative": (INPUTS, TARGETS - 1, "targets: labels go from -1 to 3, but the model has 5 outputs"),
    "int32": (INPUTS, TARGETS.int(), "targets: expected int64 labels"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("place", PLACES)
def test_the_reason_is_said(place: Callable[..., None], what: str) -> None:
    inputs, targets, message = WRONG[what]
    with pytest.raises(UserError, match=message):
        place(inputs, targets)


def test_an_evaluator_of_a_search_says_it() -> None:
    evaluator = ProxyEvaluator(SPACE, (255 * INPUTS).byte(), TARGETS, ["snip"], num_classes=5)
    found = evaluator(SPACE.sample(random.Random(0)))
    assert "inputs: images of uint8, which the model does not take" in found.message


def test_pixels_are_converted_where_images_are_read() -> None:
    pixels = (255 * INPUTS).byte()
    options: dict[str, Any] = {"objectives": ["snip"], "strategy": "random", "budget": 2}
    result = pynas.search(SPACE, images=(pixels, TARGETS), **options)
    assert [trial.evaluation.status for trial in result.trials] == ["ok", "ok"]
    scores = pynas.score(network(), images=(pixels, TARGETS), proxies=["snip"])
    assert scores["snip"].status == "ok"


def test_what_a_model_does_with_uint8_itself_is_its_own_matter() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.float() / 255)

    assert pynas.score(Scaled(), (255 * INPUTS).byte(), TARGETS, proxies=["snip"])["snip"].status == "ok"


def test_an_odd_batch_loses_a_sample_with_a_word() -> None:
    model = network()
    with pytest.warns(UserWarning, match="zico divides a batch into 2 equal parts: it leaves out the last 1"):
        odd = pynas.score(model, INPUTS[:5], TARGETS[:5], proxies=["zico"], seed=0)["zico"]
    even = pynas.score(model, INPUTS[:4], TARGETS[:4], proxies=["zico"], seed=0)["zico"]
    assert odd.value == even.value
