"""The meaning of a column's name, ``DATASET/METRIC@EPOCHS``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pynas._errors import printable
from pynas._io.files import shortened

_KEY = re.compile(r"(?P<dataset>[^/@]+)/(?P<metric>[^/@]+)(@(?P<epochs>\d{1,6}))?", re.ASCII)
_LONGEST_NAME = 100
_UNITS = (("time", "s"), ("latency", "ms"), ("energy", "mJ"))  # by the end of the metric's name
# Meanings of words in a metric's name.
_ACCURACIES = frozenset({"accuracy", "acc", "top1", "top5", "miou"})
_MEASURED = frozenset({"latency", "energy"})  # never zero
_COSTS = _MEASURED | {
    "time", "times", "seconds", "runtime", "params", "parameters", "flops", "macs", "memory", "bytes",
}  # fmt: skip
_FAULTS = frozenset({"err", "error", "perplexity"})  # lower is better, as for losses; no fixed range
_DERIVED = frozenset({
    "log", "log2", "log10", "ln", "neg", "negative", "rank", "norm", "normalized", "normalised", "std",
    "diff", "delta", "gap", "relative", "score",
})  # fmt: skip
_TRAILING = frozenset({"per", "seed", "mean", "avg"})


@dataclass(frozen=True, slots=True)
class Column:
    """One number per architecture, or one per architecture and training run.

    Attributes:
        dataset: Data set that the architectures were trained on, such as ``cifar10``; for
            TransNAS-Bench-101 the task.
        metric: ``ori-test_accuracy``, ``train_time``, ``edgegpu_latency``, ...
        epochs: Epochs of the training; None without a training (``params``, latencies).
        seeds: Seeds of the runs, in the order of the values; ``()`` for a single value.
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
        if self.is_accuracy:
            return "%"
        return next((unit for end, unit in _UNITS if self.metric.endswith(end)), "")

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values are better."""
        is_worse = bool(self._words & (_COSTS | _FAULTS)) or "loss" in self.metric.lower()
        return is_worse == bool(self._words & {"neg", "negative"})

    @property
    def is_accuracy(self) -> bool:
        """Whether its values are accuracies in percent."""
        words = [word for word in _split(self.metric) if word not in _TRAILING]
        return bool(words) and words[-1] in _ACCURACIES and not self._words & _DERIVED

    @property
    def is_cost(self) -> bool:
        """Whether its values are amounts, which are never negative, so that -1 means unknown."""
        return bool(self._words & _COSTS) and not self._words & (_DERIVED | _ACCURACIES)

    @property
    def is_measured(self) -> bool:
        """Whether its values are amounts that are never zero."""
        return self.is_cost and bool(self._words & _MEASURED)

    @property
    def _words(self) -> frozenset[str]:
        return frozenset(_split(self.metric))


def _split(metric: str) -> list[str]:
    return [word for word in re.split("[^a-z0-9]+", metric.lower()) if word]


def check_names(*names: object) -> None:
    """Raise ValueError unless each name can be the data set or the metric of a column."""
    for name in names:
        if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or set(name) & {"/", "@"}:
            raise ValueError(f"{shortened(repr(name)) if isinstance(name, str) else 'what'} is no name")
        if printable(name) != name:
            raise ValueError(f"{shortened(repr(name))} is no printable name")


def parse_key(key: str, seeds: tuple[int, ...] = ()) -> Column | None:
    """The column called ``key``; None if that is no column's name."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    epochs = match["epochs"]
    return Column(match["dataset"], match["metric"], None if epochs is None else int(epochs), seeds)
