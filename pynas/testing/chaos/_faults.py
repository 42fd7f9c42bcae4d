"""The faults: signals, power cuts, and lack of resources."""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pynas.testing.chaos._place import permissions_hold
from pynas.testing.chaos._work import SOURCE

if TYPE_CHECKING:
    from pynas.testing.chaos._jobs import Job
    from pynas.testing.chaos._place import Place
    from pynas.testing.chaos._process import Process


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        summary: What it does.
        often: How many of them come for one of each other kind.
        signal: Sent to the job.
        ends: Exit codes that it may end a job with, minus a number for that signal; 0 is always fine.
        refused: Whether the job may end with exit code 2 and one clear line while it lasts.
        passes: Whether the job goes on after it, so that another one may follow.
        keeps: Whether every trial that was called done must be there after it.
        excuse: What a trial may say that failed because of it and not of its architecture; a search cannot
            tell, keeps it as failed, and goes another way from there.
    """

    summary: str
    often: int = 1
    signal: int | None = None
    ends: tuple[int, ...] = ()
    refused: bool = False
    passes: bool = False
    keeps: bool = True
    excuse: str = ""

    def missing(self, job: Job, place: Place) -> str:
        """Why it cannot be here, or an empty text."""
        return ""

    def strike(self, process: Process, rng: random.Random) -> bool:
        """Let it happen to a running job; false if it could not happen now."""
        if self.signal is not None:
            process.send(self.signal)
        return True

    def end(self, process: Process, rng: random.Random) -> None:
        """The job's process has ended: put right what lasted, or let worse happen."""


class _Worker(Fault):
    def missing(self, job: Job, place: Place) -> str:
        return "" if job.workers > 1 and Path("/proc/self/stat").exists() else "no workers"

    def strike(self, process: Process, rng: random.Random) -> bool:
        found = process.workers()
        if found:
            os.kill(rng.choice(found), signal.SIGKILL)
        return bool(found)


class _Pause(Fault):
    def strike(self, process: Process, rng: random.Random) -> bool:
        process.send(signal.SIGSTOP)
        time.sleep(rng.uniform(0.02, 0.3))
        process.send(signal.SIGCONT)
        return True


class _Power(Fault):
    def end(self, process: Process, rng: random.Random) -> None:
        for path in sorted(process.place.folder.rglob("*")):
            if path.is_file() and path.suffix == ".partial":
                _cut(path, 0, rng)
            elif path.name.endswith("-wal"):
                _cut(path, _flushed(path), rng)
                path.with_name(path.name.removesuffix("wal") + "shm").unlink(missing_ok=True)


def _cut(path: Path, flushed: int, rng: random.Random) -> None:
    """Cut a file off somewhere after its first ``flushed`` bytes, or zero it from there on."""
    size = path.stat().st_size
    if size > flushed:
        at = rng.randrange(flushed, size)
        zeros = size - at if rng.random() < 0.5 else 0
        os.truncate(path, at)
        os.truncate(path, at + zeros)


def _flushed(log: Path) -> int:
    """How much of a write-ahead log SQLite has certainly flushed: what it began to copy to the database.

    See "The WAL-Index File Format": ``nBackfillAttempted`` is at byte 128; a frame is a page and 24 bytes.
    """
    index = log.with_name(log.name.removesuffix("wal") + "shm")
    header = log.read_bytes()[:32]
    if len(header) < 32 or not index.exists() or index.stat().st_size < 132:
        return 0
    (frames,) = struct.unpack_from("=I", index.read_bytes(), 128)
    (page,) = struct.unpack_from(">I", header, 8)
    return 32 + frames * (page + 24) if frames else 0


class _Disk(Fault):
    def missing(self, job: Job, place: Place) -> str:
        return place.why

    def strike(self, process: Process, rng: random.Random) -> bool:
        process.place.fill(rng.choice((0, rng.randrange(2**14), rng.randrange(2**20))))
        return True

    def end(self, process: Process, rng: random.Random) -> None:
        process.place.free()


class _Limit(Fault):
    def limit(self, process: Process, rng: random.Random) -> tuple[int, int]:
        raise NotImplementedError

    def missing(self, job: Job, place: Place) -> str:
        return "" if hasattr(resource, "prlimit") else "needs Linux"

    def strike(self, process: Process, rng: random.Random) -> bool:
        try:
            which, most = self.limit(process, rng)
            _, hard = resource.prlimit(process.pid, which)
            resource.prlimit(process.pid, which, (most, hard))
        except (ProcessLookupError, FileNotFoundError):
            return False
        return True


class _FileSize(_Limit):
    def limit(self, process: Process, rng: random.Random) -> tuple[int, int]:
        files = [p for p in process.place.folder.rglob("*") if p.is_file() and SOURCE not in p.parts]
        largest = max((path.stat().st_size for path in files), default=0)
        return resource.RLIMIT_FSIZE, rng.choice((largest // 2, largest + rng.randrange(2**13)))


class _Descriptors(_Limit):
    def limit(self, process: Process, rng: random.Random) -> tuple[int, int]:
        used = len(os.listdir(f"/proc/{process.pid}/fd"))
        return resource.RLIMIT_NOFILE, used + rng.randrange(5)


class _Memory(_Limit):
    def limit(self, process: Process, rng: random.Random) -> tuple[int, int]:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        return resource.RLIMIT_AS, pages * resource.getpagesize() + rng.randrange(2**25)


class _ReadOnly(Fault):
    def missing(self, job: Job, place: Place) -> str:
        return permissions_hold()

    def strike(self, process: Process, rng: random.Random) -> bool:
        process.place.writable(False)
        return True

    def end(self, process: Process, rng: random.Random) -> None:
        process.place.writable(True)


class _Clock(Fault):
    def strike(self, process: Process, rng: random.Random) -> bool:
        now = time.time()
        process.control.clock = rng.choice((-3600.0, -4e7, 86_400.0 - now))
        for path in process.place.folder.rglob("*"):
            at = now + rng.uniform(-4e7, 4e7)
            try:
                os.utime(path, (at, at))
            except FileNotFoundError:  # it is being replaced
                continue
        return True


class _Output(Fault):
    """At the start of a process: see :class:`Process`."""


FAULTS: Mapping[str, Fault] = {
    "kill": Fault("SIGKILL", 4, signal.SIGKILL, (-signal.SIGKILL,)),
    "power": _Power(
        "SIGKILL, and what was not flushed to the disk is cut off or zero",
        2,
        signal.SIGKILL,
        (-signal.SIGKILL,),
        keeps=False,
    ),
    "terminate": Fault("SIGTERM", 1, signal.SIGTERM, (-signal.SIGTERM, 128 + signal.SIGTERM)),
    "interrupt": Fault("SIGINT, as of Ctrl-C", 1, signal.SIGINT, (-signal.SIGINT, 128 + signal.SIGINT)),
    "worker": _Worker("SIGKILL of a worker", 2, refused=True, passes=True),
    "pause": _Pause("SIGSTOP, and SIGCONT a moment later", passes=True),
    "clock": _Clock("the clock is stepped back, and files have times of any order", passes=True),
    "disk": _Disk("the disk is full", refused=True),
    "file-size": _FileSize("no file may become larger", refused=True),
    "read-only": _ReadOnly("the folder may not be written any more", refused=True),
    "descriptors": _Descriptors("no more files can be opened", refused=True),
    # Native code may abort where it gets none.
    "memory": _Memory(
        "there is no more memory",
        refused=True,
        ends=(-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS),
        excuse="memory",
    ),
    "output": _Output("stdout is closed, a broken pipe, or full", refused=True),
}
"""All kinds by name."""
