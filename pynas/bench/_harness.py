"""Times implementations against each other: alternating, with checked results and a roofline bound."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pynas._io.atomic import append_line
from pynas._registry import Registry


@dataclass(frozen=True, slots=True)
class Problem:
    """One computation in several implementations.

    Attributes:
        implementations: The implementations to time, by name; ``"pynas"`` is ours, the others are baselines.
        check: Raises AssertionError if the result of ``"pynas"`` is wrong; called before the timing.
        flops: Floating-point operations that every implementation has to do, for the roofline bound.
        bytes: Bytes that every implementation has to move between memory and processor, likewise.
    """

    implementations: Mapping[str, Callable[[], object]]
    check: Callable[[], None]
    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark: how to make the problem, and which ratio of times is expected.

    Attributes:
        name: ``topic/variant``.
        make: Builds the problem; called just before the timing, so that only one problem is in memory.
        must: Largest acceptable time of ``"pynas"`` relative to the fastest baseline, or None.
        aim: Desired ratio.
        targets: (must, aim) against single baselines, by name.
        slow: Whether a round takes more than some seconds.
    """

    name: str
    make: Callable[[], Problem]
    must: float | None = None
    aim: float | None = None
    slow: bool = False
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """20th, 50th and 80th percentile over the rounds of one implementation, in the record's unit."""

    p20: float
    p50: float
    p80: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one case.

    Attributes:
        ratio: Median over rounds of pynas's time divided by the fastest baseline's in the same round.
        ratio_spread: 20th and 80th percentile of that ratio.
        floor_seconds: Roofline bound: the larger of flops / peak and bytes / bandwidth.
        unit: Unit of the timings: seconds, or MiB where memory was measured.
        ratios: 20th, 50th and 80th percentile of the ratio to each baseline.
        targets: Targets of the case.
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
        """Percentiles and ratios from the times of all rounds by name; ``facts`` are the other fields."""
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
    """Check ``case`` and time all its implementations.

    Every round runs each implementation once, in a new random order: one that runs after an operation which
    fills the caches with its own data looks slower, and this should not always hit the same.

    Args:
        case: What to time.
        seconds: Wall-clock budget of the timed rounds.
        min_rounds: Lower bound on the number of rounds, however long they take.
        seed: Seed of the order.
        peak: (FLOP/s, bytes/s) of this machine, for the roofline bound.
        machine: Copied into the record.
        synchronize: Waits for an asynchronous device; called before the clock is read.

    Raises:
        AssertionError: The result of ``"pynas"`` is wrong.
    """
    problem = case.make()
    problem.check()
    wait = synchronize or (lambda: None)
    for run in problem.implementations.values():
        run()
    rng = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in problem.implementations}
    order = list(problem.implementations)
    enabled = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples[order[0]]) < min_rounds:
            rng.shuffle(order)
            for name in order:
                wait()
                start = time.perf_counter()
                problem.implementations[name]()
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
