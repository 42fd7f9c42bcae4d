"""Search a space of your own for score and size at once, stop in the middle, and go on from the store."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from torch import nn

import pynas
from pynas.trial import Trial

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


def network(width: int, kernel: int, depth: int, act: type[nn.Module]) -> nn.Module:
    """A plain convolutional network; every argument is a choice of the space."""
    layers: list[nn.Module] = []
    for channels in (3, *[width] * (depth - 1)):
        layers += [nn.Conv2d(channels, width, kernel, padding="same"), nn.BatchNorm2d(width), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def stop(trial: Trial) -> None:
    """End the first session after twelve trials, as a time limit or a power cut would."""
    if trial.number == 11:
        raise TimeoutError("stopped after 12 trials")


choices = {"width": [8, 12, 16, 24], "kernel": [3, 5], "depth": [1, 2, 3, 4], "act": ACTIVATIONS}
space = pynas.spaces.custom(network, choices, image_size=16)
digits = pynas.data.load_images("digits", size=16)
evaluator = pynas.ProxyEvaluator(space, *pynas.data.batch(digits, 64, seed=0), proxies=["zico"])
search = partial(
    pynas.search,
    space,
    "evolution",
    objectives=["zico", "-params"],
    constraints={"flops": 2e6},
    evaluator=evaluator,
    budget=30,
)

with tempfile.TemporaryDirectory() as folder:
    store = Path(folder, "runs.db")
    try:
        search(store=store, on_trial=stop)
    except TimeoutError as error:
        print(error)
    result = search(store=store, resume=True)
whole = search()
same = [t.architecture for t in whole.trials] == [t.architecture for t in result.trials]
print(f"resumed to {len(result.trials)} trials, {'the same' if same else 'not the same'} as without a break")
print(f"front of {space.size} networks, by score and size, below 2 million multiply-adds:")
for trial in sorted(result.pareto, key=lambda trial: trial.evaluation.metrics["params"]):
    score, params = trial.evaluation.scores["zico"], trial.evaluation.metrics["params"]
    print(f"  zico {score:5.1f}, {params:5,.0f} parameters: {space.format(trial.architecture)}")
