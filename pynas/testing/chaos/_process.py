"""A job's process, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pynas.testing.chaos._control import Control
from pynas.testing.chaos._jobs import Job
from pynas.testing.chaos._place import Place
from pynas.testing.chaos._start import OUTPUTS, Copies, Order, Python

Starter = Python | Copies
_POLL = 0.0005
_LATE = 0.5  # seconds after which a signal that should have been exact is sent after all


@dataclass(frozen=True)
class End:
    """How a process ended: exit code (minus the number of a signal), or None if it had to be stopped."""

    code: int | None
    out: str
    err: str

    @property
    def line(self) -> str:
        """The last line of what it said on stderr."""
        return (self.err.strip().splitlines() or [""])[-1]

    @property
    def is_clear(self) -> bool:
        """Whether it said in one line why it ended."""
        return self.line.startswith("pynas: ") and "Traceback" not in self.err


class Process:
    """A job's process; in a session of its own, where those that it starts are found.

    Args:
        starter: Starts it.
        job: The job.
        place: Where it works.
        control: Numbers shared with it; set to zero.
        load: A Python file to run in it first, or an empty text.
        log: A folder for what it says.
        output: One of ``OUTPUTS``: what is wrong with its stdout.
    """

    def __init__(
        self,
        starter: Starter,
        job: Job,
        place: Place,
        control: Control,
        load: str,
        log: Path,
        output: str | None = None,
    ) -> None:
        self.place, self.control = place, control
        self._log = log
        control.reset()
        arguments = (str(place.folder), load, *job.command(place.folder))
        self.pid = starter.start(Order(arguments, str(log), output, job.loads))
        self._code: int | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.running:  # whoever disturbed it was disturbed
            self._stop()

    def _stop(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is None

    def send(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.running:
            os.kill(self.pid, number)

    def reaches(self, event: int, deadline: float) -> bool:
        """Wait for an event; false if the process ends before it, or at ``deadline``."""
        return self._wait(lambda: self.control.events >= event, deadline)

    def signals_itself(self, event: int, number: int, deadline: float) -> bool:
        """Let it send a signal to itself exactly at an event; false if it ends before."""
        self.control.arm(event, number)
        if not self.reaches(event, deadline) and self.control.events < event:
            return False
        self._wait(lambda: self.control.armed[0] == 0, time.monotonic() + _LATE)
        if self.control.armed[0]:  # it had passed the event already
            self.control.arm(0, 0)
            self.send(number)
        return True

    def _wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        while not ready():
            if not self.running or time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def end(self, seconds: float) -> End:
        """Wait until it has ended; stop it if that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(_POLL)
        code = self._code
        if code is None:
            self._stop()
            self._code = -signal.SIGKILL
        out, err = ((self._log / name).read_bytes().decode(errors="replace") for name in ("out", "err"))
        return End(code, out, err)

    def workers(self) -> list[int]:
        """The processes that it has started to evaluate."""
        return [pid for pid in self.left(parent=self.pid) if b"spawn_main" in _read(pid, "cmdline")]

    def left(self, parent: int | None = None) -> list[int]:
        """Processes of its session that run, but for itself; only those of this parent if one is given."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            fields = _read(pid, "stat").rpartition(b")")[2].split()  # after pid and (name)
            if len(fields) < 4:
                continue
            state, above, _, session = fields[:4]
            if int(session) != self.pid or pid == self.pid:
                continue
            if state in (b"Z", b"X"):
                if int(above) == os.getpid():  # its own parent has died
                    os.waitpid(pid, os.WNOHANG)
            elif parent is None or int(above) == parent:
                found.append(pid)
        return found

    def left_after(self, seconds: float) -> list[int]:
        """Those that still run after so many seconds; they are stopped."""
        deadline = time.monotonic() + seconds
        while (found := self.left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def some_output(rng: random.Random) -> str:
    """What is wrong with a process's stdout."""
    return rng.choice(OUTPUTS)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
