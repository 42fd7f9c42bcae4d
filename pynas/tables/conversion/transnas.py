"""TransNAS-Bench-101: ``transnas-bench_v10141024.pth``.

Y. Duan et al., "TransNAS-Bench-101: Improving Transferability and Generalizability of Cross-Task Neural
Architecture Search", CVPR 2021, arXiv:2105.11871.

``data[space][architecture][task]`` holds the epochs of its only training run, facts about the network, and
each metric after every epoch. The conversion keeps the value after the last epoch (``test_top1@25``); for
metrics of which larger is better, the best of all epochs (``best_test_top1``, mode "best" of the official
API); and the value at the epoch with the best validation (``early_test_top1``), as with early stopping.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pynas import spaces
from pynas._errors import UserError
from pynas._io.pickles.machine import REDUCED
from pynas._io.pickles.stand_ins import Array
from pynas.tables._compact import Content
from pynas.tables.conversion._collector import (
    Collector,
    Number,
    Once,
    check_archs,
    epochs_of,
    laid_out_as,
    numbers_in,
)

_KEYS = frozenset({"metrics", "model_info", "total_epochs"})
_BETTER_LARGER = ("top1", "top5", "acc", "mIoU", "ssim", "neg_loss")
_VALIDATION = ("valid_mIoU", "valid_ssim", "valid_top1", "valid_neg_loss")  # the first one of a task counts
_SPACES = {"micro": "transnas_micro", "macro": "transnas_macro"}


@dataclass(frozen=True, slots=True)
class Trained:
    """Summary of one network on one task."""

    values: tuple[tuple[str, int | None, float], ...]  # metric, epochs, value


def summary(mapping: Mapping[Any, Any]) -> Callable[[Mapping[Any, Any]], Trained] | None:
    """How to reduce a dict that is one network on one task."""
    return _reduce if mapping.keys() >= _KEYS else None


def _reduce(mapping: Mapping[Any, Any]) -> Trained:
    epochs = epochs_of(mapping["total_epochs"])
    metrics = {name: _numbers(values) for name, values in mapping["metrics"].items()}
    chosen = next((name for name in _VALIDATION if metrics.get(name)), None)
    early = _best(metrics[chosen]) if chosen else None
    found: list[tuple[str, int | None, float]] = []
    for name, values in metrics.items():
        if not values:
            continue
        if name == "time_elapsed":
            # Seconds since the start: seconds per epoch would decrease somewhere.
            grows = all(a <= b for a, b in itertools.pairwise(values))
            found.append(("train_time", epochs, values[-1] if grows else sum(values)))
            continue
        found.append((name, epochs, values[-1]))
        if name.endswith(_BETTER_LARGER):
            found.append((f"best_{name}", None, values[_best(values)]))
        if early is not None and early < len(values):
            found.append((f"early_{name}", None, values[early]))
    for name, value in mapping["model_info"].items():
        if isinstance(value, (int, float)):
            found.append((str(name), None, float(value)))
    return Trained(tuple(found))


def _numbers(values: Any) -> list[float]:
    return numbers_in(values.numbers.tolist() if isinstance(values, Array) else values)


def _best(values: list[float]) -> int:
    """The epoch of the largest number."""
    return int(np.argmax([value if math.isfinite(value) else -math.inf for value in values]))


def convert(path: Path, content: Mapping[str, Any]) -> Content:
    """The converted content of a file whose training runs were reduced during reading.

    Raises:
        UserError: The file has another layout.
    """
    with laid_out_as(path, "TransNAS-Bench-101"):
        by_space = content["data"]
        if not isinstance(by_space, dict) or not by_space.keys() <= _SPACES.keys():
            raise ValueError("data has not the keys micro and macro")
        archs: list[str] = []
        for name, results in by_space.items():
            space = spaces.get(_SPACES[name])
            check_archs(list(results), space.size or 0)
            for text in results:
                space.parse(text)
            archs += results
        collector, once = Collector(len(archs)), Once()
        tasks = (once(tasks) for results in by_space.values() for tasks in results.values())
        for row, results in enumerate(tasks):
            collector.put(row, _of_tasks(results, once))
        columns = collector.columns()
    if not columns:
        raise UserError(f"{path}: holds no result")
    return Content("transnas101", path.name, {"arch_str": np.array(archs, dtype="S")}, columns)


def _of_tasks(tasks: Mapping[str, Any], once: Once) -> list[Number]:
    return [
        ((task, metric, epochs), None, value)
        for task, result in tasks.items()
        for metric, epochs, value in once(result[REDUCED]).values
    ]
