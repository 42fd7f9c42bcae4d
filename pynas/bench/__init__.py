"""Benchmark cases, shared by ``pynas bench`` and the pytest-benchmark files in benches/."""

from __future__ import annotations

from pynas.bench import (  # noqa: F401  (they register cases)
    _codes,
    _proxies,
    _small_operators,
    _subnets,
    collecting,
    mixed_edges,
    operators,
)
from pynas.bench._harness import CASES, Case, Problem, Record, Timing, measure
from pynas.bench._machine import describe, peak

__all__ = ["CASES", "Case", "Problem", "Record", "Timing", "describe", "measure", "peak"]
