"""Benchmarks as programs: the same cases serve ``pynas bench`` and the pytest-benchmark files in benches/."""

from __future__ import annotations

from pynas.bench import _collect, _operators  # noqa: F401  (registers its cases)
from pynas.bench._harness import CASES, Case, Problem, Record, Timing, measure
from pynas.bench._machine import describe, peak

__all__ = ["CASES", "Case", "Problem", "Record", "Timing", "describe", "measure", "peak"]
