"""Each bad input is one clear error that names the argument."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pynas._errors import UserError
from pynas.stats import GradMoments, GradNorms, RunningGradMoments, collect

X, Y = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])


def model() -> nn.Module:
    return nn.Linear(6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": X / 0}, r"inputs: \d+ of 24 values are NaN or infinite"),
        (
            {"targets": torch.tensor([0, 1, 3, 0])},
            "targets: labels go from 0 to 3, but the model has 3 outputs",
        ),
        ({"targets": torch.tensor([0, -1, 2, 0])}, "targets: labels go from -1"),
        ({"targets": Y[:3]}, r"differ in their number of samples: \[3, 4\]"),
        ({"targets": None}, "targets: without loss_fn"),
        ({"targets": Y.int()}, "targets: expected int64"),
        ({"inputs": X[:0], "targets": Y[:0]}, "inputs: the batch is empty"),
        ({"inputs": X[:1], "targets": Y[:1], "needs": [GradMoments(("centered",))]}, "inputs: a variance"),
        ({"group_size": 4, "needs": [GradMoments(("centered",))]}, "inputs: a variance"),
        ({"group_size": 3}, "group_size: expected a divisor of the 4 samples, got 3"),
        ({"micro_batches": 3}, "micro_batches: expected a divisor"),
        ({"micro_batches": 2}, "micro_batches=2: GradNorms is taken in one pass"),
        ({"needs": [RunningGradMoments()]}, "micro_batches=1: moments over successive"),
        ({"needs": []}, "needs: expected at least one"),
        ({"batch_norm": "train"}, "batch_norm: expected one of batch, group, frozen"),
        ({"fallback": ("rnn",)}, "fallback: no layer 'rnn'"),
        ({"model": nn.ReLU()}, "model: it has no trainable parameters"),
        ({"model": nn.Linear(6, 3).requires_grad_(False)}, "model: it has no trainable parameters"),
        ({"loss_fn": lambda out, _: out}, "loss_fn: expected a scalar"),
        (
            {"model": nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), "batch_norm": "group"},
            "inputs: batch norm has one value per channel",
        ),
    ],
)
def test_message(arguments: dict[str, object], message: str) -> None:
    call = {"model": model(), "inputs": X, "targets": Y, "needs": [GradNorms()], **arguments}
    with pytest.raises(UserError, match=message):
        collect(call.pop("model"), call.pop("inputs"), call.pop("targets"), **call)


def test_unknown_moment() -> None:
    with pytest.raises(UserError, match="moments must be some of"):
        GradMoments(("mean",))
    with pytest.raises(UserError, match="parameters must be"):
        GradMoments(parameters="conv")
