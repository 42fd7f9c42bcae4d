"""What a column of a table holds, by its name: ``DATASET/METRIC@EPOCHS``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KEY = re.compile(r"(?P<dataset>[^/@]+)/(?P<metric>[^/@]+)(@(?P<epochs>\d+))?")
_UNITS = (  # the first that ends the metric's name
    ("accuracy", "%"),
    ("top1", "%"),
    ("top5", "%"),
    ("time", "s"),
    ("latency", "ms"),
    ("energy", "mJ"),
)
# Numbers that are worse the larger they are.
_COSTS = ("loss", "time", "latency", "energy", "params", "flops", "time_elapsed")


@dataclass(frozen=True, slots=True)
class Column:
    """One number per architecture, or one per architecture and training run.

    Attributes:
        dataset: What the architectures were trained on, ``cifar10``; the task, for TransNAS-Bench-101.
        metric: ``ori-test_accuracy``, ``train_time``, ``edgegpu_latency``, ...
        epochs: Epochs of the training, None where there is none (``params``, latencies).
        seeds: Of the runs, in the order of the values; ``()`` for a single value.
    """

    dataset: str
    metric: str
    epochs: int | None = None
    seeds: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """``DATASET/METRIC@EPOCHS``: the name of the column's array in a file."""
        return f"{self.dataset}/{self.metric}" + ("" if self.epochs is None else f"@{self.epochs}")

    @property
    def unit(self) -> str:
        """``%``, ``s``, ``ms``, ``mJ``, or nothing."""
        return next((unit for end, unit in _UNITS if self.metric.endswith(end)), "")

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return self.metric.endswith("neg_loss") or not self.metric.endswith(_COSTS)


def parse_key(key: str, seeds: tuple[int, ...] = ()) -> Column | None:
    """The column that ``key`` names, None if it names none."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    epochs = match["epochs"]
    return Column(match["dataset"], match["metric"], None if epochs is None else int(epochs), seeds)
