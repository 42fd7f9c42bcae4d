"""Starts the process that makes the calls, and collects the faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MEMORY = 2 << 30
"""Bytes that the calls may allocate, all tensors together; 0 is no limit (a sanitizer reserves terabytes)."""


@dataclass(frozen=True)
class Fault:
    """A call that ended badly.

    Attributes:
        index: its number; -1 for a sample that was not changed.
        op: the operator.
        reason: the signal, the exception, or how the result is wrong.
        call: its arguments, tensors by what they are and not by their values.
    """

    index: int
    op: str
    reason: str
    call: str


@dataclass(frozen=True)
class Report:
    """What came of the calls.

    Attributes:
        calls: how many were made, the unchanged samples not counted.
        faults: those that ended badly.
        seconds: how long it took.
    """

    calls: int
    faults: tuple[Fault, ...]
    seconds: float


def fuzz(
    calls: int,
    seed: int = 0,
    *,
    first: int = 0,
    memory: int = MEMORY,
    patience: float = 20.0,
    most_deaths: int = 50,
) -> Report:
    """Makes `calls` calls of all operators in turn, in a process of its own.

    Args:
        calls: how many, the unchanged samples not counted.
        seed: calls are drawn by it and by their number alone.
        first: number of the first call; 0 tries the unchanged samples too.
        memory: bytes that the calls may allocate, or 0.
        patience: seconds after which a call counts as hanging.
        most_deaths: after so many calls that end the process no more are made.

    Raises:
        RuntimeError: the process did not get to the end, whatever the calls did.
    """
    begin = time.monotonic()
    # Memory that was not written to holds no zeros that would pass for results.
    environment = {"MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        numbers = (seed, first, first + calls, memory, patience, most_deaths)
        command = [
            sys.executable,
            "-m",
            "pynas.testing.operator_fuzz._child",
            str(report),
            *map(str, numbers),
        ]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        sys.stderr.write(done.stderr)
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    if done.returncode != 0 or not lines or not isinstance(lines[-1], int):
        raise RuntimeError(f"the fuzzer ended early, exit code {done.returncode}: {done.stderr[-2000:]}")
    return Report(lines[-1], tuple(Fault(*line) for line in lines[:-1]), time.monotonic() - begin)
