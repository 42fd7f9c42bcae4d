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
        index: Number of the call; -1 for an unchanged sample.
        op: The operator.
        reason: The signal, the exception, or how the result is wrong.
        call: Its arguments; tensors by shape, dtype and layout, without values.
    """

    index: int
    op: str
    reason: str
    call: str


@dataclass(frozen=True)
class Report:
    """The result of the calls.

    Attributes:
        calls: Number of calls, without the unchanged samples.
        faults: Calls that ended badly.
        seconds: Duration.
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
        calls: Number of calls, without the unchanged samples.
        seed: Seed; a call depends only on it and on its number.
        first: Number of the first call; 0 also tries the unchanged samples.
        memory: Bytes that the calls may allocate; 0 for no limit.
        patience: Seconds after which a call counts as hanging.
        most_deaths: Stop after so many calls that end the process.

    Raises:
        RuntimeError: The fuzzer itself did not complete.
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
