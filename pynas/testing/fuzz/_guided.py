"""Looking for failures by atheris, which changes inputs so that they run lines that none did before."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pynas.testing._sandbox import MEMORY, PATIENCE, skeleton
from pynas.testing.fuzz._random import failures_of
from pynas.testing.fuzz._targets import TARGETS, Target

# The process must ask for its modules to be instrumented before any of them is imported.
_PROGRAM = """
import sys, atheris
with atheris.instrument_imports(include=["pynas"], enable_loader_override=False):
    from pynas.testing.fuzz import _guided
_guided.child(sys.argv[1:])
"""
_STARTING = 300.0  # seconds that a process may take beside those for fuzzing


class _FailureError(Exception):
    """A target failed, in a way that was not known."""


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def search(
    target: Target, corpus: Sequence[bytes], seconds: float, seed: int, most: int
) -> tuple[dict[bytes, str], int]:
    """As :func:`pynas.testing.fuzz._random.search`; the number of inputs is what atheris says."""
    found: dict[bytes, str] = {}
    done, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="pynas-fuzz-") as name:
        inputs, failing, tokens = (Path(name) / part for part in ("inputs", "failing", "tokens"))
        inputs.mkdir()
        failing.mkdir()
        for number, raw in enumerate(corpus):
            (inputs / f"{number}").write_bytes(raw)
        tokens.write_text("".join(f'"{_escaped(token[:64])}"\n' for token in target.tokens))
        while len(found) < most and (left := end - time.monotonic()) > 1:
            known = json.dumps([skeleton(reason) for reason in found.values()])
            options = {
                "max_total_time": int(left),
                "seed": seed + 1 + len(found),
                "artifact_prefix": f"{failing}/",
                "timeout": int(PATIENCE),
                "rss_limit_mb": (MEMORY >> 20) + 2048,
                "print_final_stats": 1,
                "verbosity": 0,
            }
            command = [sys.executable, "-c", _PROGRAM, target.name, known, str(inputs)]
            command += [f"-{option}={value}" for option, value in options.items()]
            command += [f"-dict={tokens}"] if target.tokens else []
            result = subprocess.run(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=name,
                env=os.environ | {"TMPDIR": name},
                timeout=left + _STARTING,
                check=False,
            )
            done += _executed(result.stderr)
            paths = list(failing.iterdir())
            if not paths:
                if result.returncode:
                    raise RuntimeError(f"atheris: code {result.returncode}: {result.stderr[-2000:]}")
                break
            for path in paths:
                raw = path.read_bytes()
                path.unlink()
                again = failures_of(target, [raw])
                found[raw] = again.get(raw, f"it fails under atheris alone: {result.stderr[-300:]!r}")
    return found, done


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _executed(output: str) -> int:
    """The number of inputs, out of the statistics at the end."""
    line = next((line for line in output.splitlines() if "number_of_executed_units" in line), ":0")
    return int(line.rpartition(":")[2])


def child(arguments: Sequence[str]) -> None:
    """In the process that atheris drives; never returns."""
    atheris: Any = importlib.import_module("atheris")
    name, known_json, *options = arguments
    target, known = TARGETS[name], set(json.loads(known_json))

    def test_one_input(raw: bytes) -> None:
        failure, _ = target.verdict(raw)
        if failure and skeleton(failure) not in known:
            raise _FailureError(failure)

    atheris.Setup([sys.argv[0], *options], test_one_input)
    atheris.Fuzz()
