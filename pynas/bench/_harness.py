"""Timing contenders against each other: alternated, checked, with the floor beside the numbers."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pynas._atomic import append_line
from pynas._registry import Registry


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to compute, by several means.

    Attributes:
        contenders: What to time, by name; ``"pynas"`` is ours, the others are what a user has without it.
        check: Raises AssertionError when the result that ``"pynas"`` gives is wrong; run before the timing.
        flops: Floating-point operations that any method must do, for the floor.
        bytes: Bytes that any method must move between memory and processor, for the floor.
    """

    contenders: Mapping[str, Callable[[], object]]
    check: Callable[[], None]
    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark: how to make the problem, and what is expected of it.

    Attributes:
        name: ``topic/variant``.
        make: Builds the problem; called just before it is timed, so that cases do not pile up in memory.
        must: Largest acceptable time of ``"pynas"`` relative to the best other contender, or None.
        aim: The ratio we would like.
        targets: The same two ratios against single other contenders, by name.
        slow: Takes more than some seconds a round.
    """

    name: str
    make: Callable[[], Problem]
    must: float | None = None
    aim: float | None = None
    slow: bool = False
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender's seconds (or the record's unit): 20th, 50th and 80th percentile of the rounds."""

    p20: float
    p50: float
    p80: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Record:
    """What one case gave.

    Attributes:
        ratio: Median over rounds of pynas's time over the best other contender's in the same round.
        ratio_spread: Its 20th and 80th percentile.
        floor_seconds: The larger of flops over peak and bytes over bandwidth.
        unit: Of the timings: seconds, or MiB where memory was measured.
        ratios: 20th, 50th and 80th percentile of the ratio to each other contender.
        targets: Of the case.
    """

    case: str
    timings: Mapping[str, Timing]
    best_other: str | None
    ratio: float | None
    ratio_spread: tuple[float, float] | None
    must: float | None
    aim: float | None
    floor_seconds: float | None
    machine: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "seconds"
    ratios: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, case: str, samples: Mapping[str, Sequence[float]], **facts: Any) -> Record:
        """Percentiles and ratio of what contenders took round by round; ``facts`` are the other fields."""
        timings = {
            name: Timing(percentile(t, 0.2), percentile(t, 0.5), percentile(t, 0.8), len(t))
            for name, t in samples.items()
        }
        ratios = {}
        for name in timings.keys() - {"pynas"}:
            by_round = [a / b for a, b in zip(samples["pynas"], samples[name], strict=True)]
            ratios[name] = (percentile(by_round, 0.2), percentile(by_round, 0.5), percentile(by_round, 0.8))
        best = min(ratios, key=lambda name: timings[name].p50) if ratios else None
        return cls(
            case=case,
            timings=timings,
            best_other=best,
            ratio=ratios[best][1] if best else None,
            ratio_spread=(ratios[best][0], ratios[best][2]) if best else None,
            ratios={name: ratios[name] for name in timings if name in ratios},
            **{"must": None, "aim": None, "floor_seconds": None, **facts},
        )

    def append_to(self, path: Path) -> None:
        """Add the record to a file as a JSON line."""
        append_line(path, json.dumps(self.to_dict()), parents=True)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return asdict(self)


CASES: Registry[Case] = Registry("benchmark")


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value at ``fraction`` of the sorted values, linearly interpolated."""
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def measure(
    case: Case,
    *,
    seconds: float = 2.0,
    min_rounds: int = 5,
    seed: int = 0,
    peak: tuple[float, float] | None = None,
    machine: Mapping[str, Any] | None = None,
    synchronize: Callable[[], None] | None = None,
) -> Record:
    """Check and time all contenders of ``case``.

    Every round runs each contender once, in a fresh random order: whatever follows an operation that
    leaves the caches full of its own data looks slower, and no contender should always be the one.

    Args:
        case: What to time.
        seconds: Wall-clock budget of the timed rounds.
        min_rounds: At least so many rounds, whatever they take.
        seed: Of the order.
        peak: (FLOP/s, bytes/s) of this machine, for the floor.
        machine: Copied into the record.
        synchronize: Waits for a device that works on its own; called before a clock is read.

    Raises:
        AssertionError: pynas's result is wrong.
    """
    problem = case.make()
    problem.check()
    wait = synchronize or (lambda: None)
    for run in problem.contenders.values():
        run()
    rng = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in problem.contenders}
    order = list(problem.contenders)
    enabled = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples[order[0]]) < min_rounds:
            rng.shuffle(order)
            for name in order:
                wait()
                start = time.perf_counter()
                problem.contenders[name]()
                wait()
                samples[name].append(time.perf_counter() - start)
    finally:
        if enabled:
            gc.enable()
    return Record.of(
        case.name,
        samples,
        must=case.must,
        aim=case.aim,
        targets=case.targets,
        floor_seconds=max(problem.flops / peak[0], problem.bytes / peak[1]) if peak else None,
        machine=dict(machine or {}),
    )
