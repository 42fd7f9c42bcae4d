"""How a job's process is started: by Python itself, or as a copy of a process that has loaded everything.

Copies start in milliseconds where Python needs seconds for the modules of a training. But then no fault hits
while modules load, and all processes have the same hash seed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pynas.testing.chaos._control import VARIABLE
from pynas.testing.chaos._place import give_up_rights, obey_permissions

_PR_SET_CHILD_SUBREAPER = 36
_SERVE = "--serve"
_CHILD = "pynas.testing.chaos._child"
OUTPUTS = ("closed", "pipe", "full")


@dataclass(frozen=True)
class Order:
    """A process to start.

    Attributes:
        arguments: Of :mod:`pynas.testing.chaos._child`.
        log: Folder of what it says and of the numbers it shares.
        output: One of ``OUTPUTS``: what is wrong with its stdout; None for nothing.
        loads: Modules that a copy finds loaded.
    """

    arguments: tuple[str, ...]
    log: str
    output: str | None = None
    loads: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What it finds in its environment beside the rest."""
        log = Path(self.log)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {VARIABLE: str(log / "control"), "XDG_CACHE_HOME": str(log / "cache"), **threads}

    def stdout(self) -> int:
        """A descriptor of its stdout."""
        if self.output == "pipe":
            reader, writer = os.pipe()
            os.close(reader)
            return writer
        Path(self.log, "out").write_bytes(b"")
        return os.open("/dev/full" if self.output == "full" else Path(self.log, "out"), os.O_WRONLY)

    def stderr(self) -> int:
        """A descriptor of its stderr."""
        return os.open(Path(self.log, "err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


class Python:
    """Starts each process by Python."""

    def start(self, order: Order) -> int:
        """The number of the process, a child of this one that leads a session."""

        def prepare() -> None:
            obey_permissions()
            if order.output == "closed":
                os.close(1)

        out, err = order.stdout(), order.stderr()
        process = subprocess.Popen(
            [sys.executable, "-m", _CHILD, *order.arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=os.environ | order.environment,
            start_new_session=True,
            preexec_fn=prepare,
        )
        os.close(out)
        os.close(err)
        process.returncode = 0  # somebody else waits for it
        return process.pid

    def close(self) -> None:
        """Nothing is left running."""


class Copies:
    """Starts each process as a copy of one that has loaded the modules that the first one needed.

    That one hands its copies on: they become children of this process.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", _CHILD, _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | Order((), "").environment,
        )

    def start(self, order: Order) -> int:
        """The number of the process, a child of this one that leads a session."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process that was copied."""
        self._process.communicate()


def serve(run: Callable[[Sequence[str]], None]) -> None:
    """Copy this process whenever told to; a copy calls ``run`` with its arguments."""
    for line in sys.stdin:
        values: dict[str, Any] = json.loads(line)
        order = Order(tuple(values["arguments"]), values["log"], values["output"], tuple(values["loads"]))
        noted = Path(order.log, "modules")
        for name in (*order.loads, *(noted.read_text().split() if noted.exists() else ())):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        reader, writer = os.pipe()
        between = os.fork()
        if between:
            number = os.read(reader, 16)
            os.waitpid(between, 0)  # from now on the copy is the child of whoever told
            os.write(1, number + b"\n")
            os.close(reader)
            os.close(writer)
            continue
        copy = os.fork()
        if copy:
            os.write(writer, str(copy).encode())
            os._exit(0)
        os.close(reader)
        os.close(writer)
        _become(order)
        return run(order.arguments)
    return None


def _become(order: Order) -> None:
    os.setsid()
    give_up_rights()
    os.environ.update(order.environment)
    for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), order.stdout(), order.stderr())):
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0)  # noqa: SIM115
    if order.output == "closed":
        os.close(1)
        sys.stdout = None


def note_modules(log: Path) -> None:
    """Write which modules this process has loaded, for copies to come."""
    names = [name for name in sys.modules if name.isascii() and "__" not in name]
    with contextlib.suppress(OSError):
        (log / "modules").write_text("\n".join(names))
