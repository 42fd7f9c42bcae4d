"""Reading hostile files in a process of its own, with little memory and little time for each.

:func:`outcomes` reads many files in one such process, which costs an import and then a few milliseconds a
file. Run as a program it is that process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 512 << 20  # bytes of address space beyond what the process has when everything is imported
SECONDS = 4.0  # of processor time for one file


@dataclass(frozen=True)
class Outcome:
    """How the reading of one file ended: ``error`` is the name of the exception's type, or empty."""

    error: str
    message: str
    seconds: float


def outcomes(jobs: Sequence[tuple[str, str]]) -> list[Outcome]:
    """Read each ``(kind of reader, what it reads)``; a job that ends the process has the error ``died``."""
    found: list[Outcome] = []
    while len(found) < len(jobs):
        rest = json.dumps(jobs[len(found) :])
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        done = subprocess.run(
            command, input=rest, capture_output=True, text=True, env=environment, check=False
        )
        lines = done.stdout.splitlines()
        found += [Outcome(**json.loads(line)) for line in lines]
        if done.returncode and len(found) < len(jobs):
            assert "Traceback" not in done.stderr, done.stderr
            found.append(Outcome("died", f"exit status {done.returncode}", 0.0))
    return found


def _read(kind: str, what: str) -> Any:
    from pynas import data, hardware, tables
    from pynas.data.text import read_words
    from pynas.spaces import NASBench201
    from pynas.tables import analog

    if kind == "convert":
        return tables.convert(what, Path(what).parent / "converted.npz", overwrite=True)
    if kind == "analog":
        return analog.read_file(Path(what), NASBench201())
    if kind == "table":
        return tables.load(what, "nasbench201").best()
    if kind == "latency":
        return hardware.load(what, "nasbench201")
    return data.load_images(what) if kind == "images" else read_words(what)


def _main() -> None:
    from pynas import spaces
    from pynas._errors import UserError

    spaces.get("nasbench201").parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    _warm_up()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("error")
    for kind, what in json.loads(sys.stdin.read()):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
        begin, error, message = time.process_time(), "", ""
        try:
            _read(kind, what)
        except UserError as caught:
            error, message = "UserError", str(caught)
        except BaseException as caught:
            error, message = type(caught).__name__, str(caught)[:500]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(
            json.dumps({"error": error, "message": message, "seconds": time.process_time() - begin}),
            flush=True,
        )


def _warm_up() -> None:
    """Import what readers import when they are called: libraries take address space too."""
    import google_crc32c  # noqa: F401
    from PIL import Image

    import pynas.data.text
    import pynas.hardware
    import pynas.tables.analog  # noqa: F401

    Image.init()


if __name__ == "__main__":
    _main()
