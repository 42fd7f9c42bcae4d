"""NAS-Bench-201 and NATS-Bench: results with the same layout, in different kinds of files.

X. Dong, Y. Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326; X. Dong et al., "NATS-Bench", TPAMI 2021,
arXiv:2009.00437. ``NAS-Bench-201-v1_1-096897.pth`` and ``NATS-tss-v1_0-3ffb9.pickle.pbz2`` are one pickle;
``NATS-tss-v1_0-3ffb9-simple`` and ``NATS-sss-v1_0-50262-simple`` are folders, one pickle per architecture.

A pickle holds, per architecture and training length, the results of every data set and seed: accuracy, loss
and time of every epoch on the training set and on the evaluation sets ``x-valid``, ``x-test``, ``ori-test``.
The conversion keeps those of the last epoch, the seconds of the whole training, and those of one evaluation.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pynas import spaces
from pynas._errors import UserError
from pynas._io.files import shortened
from pynas._io.pickles.machine import REDUCED
from pynas._plural import counted
from pynas.tables._columns import check_names
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
from pynas.tables.formats import pickle_file

_SUFFIX = ".pickle.pbz2"
_MOST_LENGTHS, _MOST_RUNS, _MOST_SETS = 8, 64, 8  # bounds on training lengths, runs, evaluation sets
_TRIAL_KEYS = frozenset({"train_acc1es", "eval_acc1es", "epochs", "seed"})
_COSTS = {"params": ("params", 1e6), "flop": ("flops", 1e6)}  # the files count in millions
_REFERENCE_SEED = 888  # according to the official API, its costs are correct where seeds disagree


@dataclass(frozen=True, slots=True)
class Trial:
    """Summary of one training run; its size does not depend on the number of epochs."""

    epochs: int
    names: tuple[str, ...]
    values: array[float]


def summary(mapping: Mapping[Any, Any]) -> Callable[[Mapping[Any, Any]], Trial] | None:
    """How to reduce a dict that is a training run."""
    return reduce if mapping.keys() >= _TRIAL_KEYS else None


def reduce(mapping: Mapping[Any, Any]) -> Trial:
    """The summary of a training run."""
    epochs = epochs_of(mapping["epochs"])
    last = epochs - 1
    numbers: dict[str, Any] = {
        "train_accuracy": _at(mapping["train_acc1es"], last),
        "train_loss": _at(mapping.get("train_losses"), last),
    }
    times = mapping.get("train_times")
    # The number of epochs is that of the recorded times, not the nominal one.
    if isinstance(times, dict) and len(times) >= epochs and all(e in times for e in range(epochs)):
        numbers["train_time"] = sum(times[epoch] for epoch in range(epochs))
    names = mapping.get("eval_names") or ()
    if not isinstance(names, (list, tuple)) or len(names) > _MOST_SETS:
        raise ValueError(f"eval_names: expected at most {_MOST_SETS} names")
    for name in names:
        check_names(name)
        numbers[f"{name}_accuracy"] = _at(mapping["eval_acc1es"], f"{name}@{last}")
        numbers[f"{name}_loss"] = _at(mapping.get("eval_losses"), f"{name}@{last}")
        passes = _passes(mapping.get("eval_times"), name, epochs)
        if passes:
            numbers[f"{name}_time"] = sum(passes) / len(passes)
    for name, (ours, factor) in _COSTS.items():
        if isinstance(mapping.get(name), (int, float)):
            numbers[ours] = mapping[name] * factor
    latencies = [seconds for seconds in numbers_in(mapping.get("latency") or ()) if seconds > 0]
    if latencies:
        numbers["latency"] = 1e3 * sum(latencies) / len(latencies)
    known = {name: float(value) for name, value in numbers.items() if isinstance(value, (int, float))}
    return Trial(epochs, tuple(known), array("d", known.values()))


def _at(values: Any, key: Any) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def _passes(times: Any, name: str, epochs: int) -> list[float]:
    """Seconds of each pass over one evaluation set."""
    if not isinstance(times, dict) or len(times) < epochs:
        return []
    found = [times.get(f"{name}@{epoch}") for epoch in range(epochs)]
    return [seconds for seconds in found if isinstance(seconds, (int, float))]


def numbers_of(results: Mapping[Any, Any], expected: str, once: Once) -> Iterator[Number]:
    """All kept numbers of one architecture, from its results by training length.

    Raises:
        ValueError: The results have another layout, or are of another architecture than ``expected``.
    """
    if len(results) > _MOST_LENGTHS:
        raise ValueError(f"trainings of {counted(len(results), 'length')}")
    costs: dict[str, dict[str, float]] = {}
    for result in sorted(results.values(), key=_longest):
        found = result.get("arch_str")
        if isinstance(found, str) and "|" in found and found != expected:
            raise ValueError(f"results of {shortened(found)} in the place of {expected}")
        by_dataset: dict[str, dict[int, Trial]] = {}
        for (dataset, seed), run in result["all_results"].items():
            if type(seed) is not int:
                raise ValueError("a seed that is no integer")
            by_dataset.setdefault(dataset, {})[seed] = once(_trial(run))
        for dataset, trials in by_dataset.items():
            for seed, trial in trials.items():
                for name, value in zip(trial.names, trial.values, strict=True):
                    if name not in ("params", "flops", "latency"):
                        yield (dataset, name, trial.epochs), seed, value
            # With several lengths, the longest counts, which comes last.
            costs[dataset] = costs.get(dataset, {}) | _costs(trials)
    for dataset, named in costs.items():
        for name, value in named.items():
            yield (dataset, name, None), None, value


def _trial(run: Mapping[Any, Any]) -> Trial:
    trial = run.get(REDUCED)
    if not isinstance(trial, Trial):
        raise ValueError("a training run without its accuracies")
    return trial


def _longest(result: Mapping[Any, Any]) -> int:
    runs = result["all_results"]
    if len(runs) > _MOST_RUNS:
        raise ValueError(f"{counted(len(runs), 'training run')} of one length")
    return max((_trial(run).epochs for run in runs.values()), default=0)


def _costs(trials: Mapping[int, Trial]) -> dict[str, float]:
    """Parameters, multiply-adds and latency of one network, from its runs."""
    found: dict[str, float] = {}
    for name in ("params", "flops", "latency"):
        values = {
            seed: trial.values[trial.names.index(name)]
            for seed, trial in trials.items()
            if name in trial.names
        }
        if not values:
            continue
        disagree = name != "latency" and len({round(value / 10) for value in values.values()}) > 1
        if disagree and _REFERENCE_SEED in values:
            found[name] = values[_REFERENCE_SEED]
        else:
            found[name] = sum(values.values()) / len(values)
    return found


def family_of(archs: Any) -> str:
    """The family, topology or size, of a list of architectures; ValueError if it is of neither."""
    if not isinstance(archs, list) or not archs or not isinstance(archs[0], str):
        raise ValueError("meta_archs: expected a list of architecture strings")
    family, name = ("nats_tss", "nasbench201") if archs[0].startswith("|") else ("nats_sss", "nats_size")
    space = spaces.get(name)
    check_archs(archs, space.size or 0)
    for text in archs:
        space.parse(text)
    return family


def convert_whole(path: Path, content: Mapping[str, Any]) -> Content:
    """The converted content of a file whose training runs were reduced during reading.

    Raises:
        UserError: The file has another layout.
    """
    with laid_out_as(path, "NAS-Bench-201 or NATS-Bench"):
        archs, infos = content["meta_archs"], content["arch2infos"]
        family = family_of(archs)
        collector, once = Collector(len(archs)), Once()
        for index, results in infos.items():
            if type(index) is not int or not 0 <= index < len(archs):
                raise ValueError(f"an architecture {shortened(index)} of {len(archs)}")
            collector.put(index, numbers_of(once(results), archs[index], once))
    return _content(family, path, archs, collector)


def is_folder(path: Path) -> bool:
    """Whether ``path`` has the file that lists the architectures of the other files."""
    return os.path.lexists(path / f"meta{_SUFFIX}")


def convert_folder(path: Path, on_progress: Callable[[float], None]) -> Content:
    """The converted content of a folder with one file per architecture; one at a time is in memory.

    The values of an architecture without a file are unknown.

    Raises:
        UserError: The folder has no such files, or one is damaged or refers to forbidden names.
    """
    listing = path / f"meta{_SUFFIX}"
    meta = _load(listing)
    with laid_out_as(listing, "NATS-Bench"):
        archs: Any = meta.get("meta_archs") if isinstance(meta, dict) else None
        family = family_of(archs)
    collector = Collector(len(archs))
    found = 0
    for index, text in enumerate(archs):
        names = (f"{index:06d}{_SUFFIX}", f"{index}{_SUFFIX}")
        file = next((path / name for name in names if os.path.lexists(path / name)), None)
        if file is not None:
            found += 1
            results = _load(file)
            with laid_out_as(file, "NATS-Bench"):
                collector.put(index, numbers_of(results, text, Once()))
        on_progress((index + 1) / len(archs))
    if not found:
        raise UserError(f"{path}: holds no file {0:06d}{_SUFFIX} to {len(archs) - 1:06d}{_SUFFIX}")
    return _content(family, path, archs, collector)


def _load(path: Path) -> Any:
    return pickle_file.load(path, summary, what="a file of NATS-Bench")


def _content(family: str, path: Path, archs: list[str], collector: Collector) -> Content:
    columns = collector.columns()
    if not columns:
        raise UserError(f"{path}: holds no result")
    return Content(family, path.name, {"arch_str": np.array(archs, dtype="S")}, columns)
