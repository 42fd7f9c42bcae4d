"""Searches whose store was written once: their evaluators and spaces must stay as they are, to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynas
from pynas.spaces import NASBench201, SearchSpace
from pynas.trial import Evaluation, Status

TRIALS = 12
"""Of each run in the store."""


class Toy(NASBench201):
    """A space of a user's own."""

    name = "toy"

    def format(self, arch: pynas.Architecture) -> str:
        return f"toy {super().format(arch)}"


class Counting:
    """An evaluator that says nothing of itself."""

    def __init__(self, weight: int) -> None:
        self.weight = weight

    def __call__(self, arch: pynas.Architecture) -> Evaluation:
        return Evaluation(Status.OK, {"sum": float(self.weight * sum(arch.decisions))})


def network(width: int, depth: int, in_channels: int = 3, num_classes: int = 10) -> Any:
    """A network of a custom space."""
    from torch import nn

    layers = [nn.Conv2d(width if i else in_channels, width, 3) for i in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def custom() -> SearchSpace:
    """A space of a factory and its arguments."""
    return pynas.spaces.custom(network, {"width": [8, 16, 24, 32], "depth": [1, 2, 3]})


SEARCHES: dict[str, dict[str, Any]] = {
    "costs": {"space": "nasbench201", "strategy": "evolution", "objectives": ["-params"]},
    "evaluator": {"space": "nasbench201", "strategy": "evolution", "evaluator": Counting(2)},
    "space": {"space": Toy(channels=4), "strategy": "random", "evaluator": Counting(2)},
    "custom": {"space": custom(), "strategy": "local_search", "evaluator": Counting(2)},
    "front": {
        "space": "nasbench101",
        "strategy": "nsga2",
        "evaluator": Counting(1),
        "objectives": ["sum", "-flops"],
    },
    "predictor": {"space": "epnas", "strategy": "epnas", "evaluator": Counting(3)},
    "layers": {"space": "mbv2_zico", "strategy": "zico_evolution", "evaluator": Counting(1)},
}
"""One of each kind; custom spaces end at their size."""

FORMER_OPTIONS: dict[str, dict[str, Any]] = {"layers": {"strategy_options": {"procedure": "moves"}}}
"""Those that the stored searches had and that are not the defaults of today."""


def run(name: str, store: Path | None, budget: int, **options: Any) -> pynas.SearchResult:
    """Run one of :data:`SEARCHES`."""
    return pynas.search(
        **{"objectives": ["sum"], "seed": 3, **SEARCHES[name]}, budget=budget, store=store, **options
    )
