"""Where jobs work: a small disk of its own where that can be had, which can be filled without harm."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pynas.testing.chaos._work import SOURCE

_SIZE = 128 * 2**20
_BALLAST = ".ballast"
_CLONE_NEWNS = 0x20000
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC = (1, 2)  # of root: to write and to read whatever the permissions


class Place:
    """A folder for one job at a time.

    Args:
        root: Where its folders are.
        is_disk: Whether ``root`` is a file system of its own, of ``_SIZE`` bytes.
        why: Why it is not, else empty.
    """

    def __init__(self, root: Path, is_disk: bool, why: str) -> None:
        self.root, self.is_disk, self.why = root, is_disk, why
        self.folder, self._prepared = root / "job", root / "prepared"

    def prepare(self) -> Path:
        """An empty folder for what a job reads; :meth:`fresh` copies it."""
        shutil.rmtree(self._prepared, ignore_errors=True)
        (self._prepared / SOURCE).mkdir(parents=True)
        return self._prepared

    def fresh(self) -> Path:
        """The job's folder with nothing in it but what the job reads."""
        self.writable(True)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._prepared, self.folder)
        return self.folder

    def fill(self, left: int) -> None:
        """Take the space of the disk but for ``left`` bytes."""
        with (self.root / _BALLAST).open("wb") as file:
            for _ in range(10):  # the job may be quicker
                state = os.statvfs(self.root)
                size = state.f_bavail * state.f_frsize - left
                if size <= 0:
                    return
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, size)
                    return

    def free(self) -> None:
        """Give back what :meth:`fill` took."""
        (self.root / _BALLAST).unlink(missing_ok=True)

    def writable(self, yes: bool) -> None:
        """Whether the folder of the job, and those in it, may be written."""
        if self.folder.is_dir():
            inner = (path for path in self.folder.iterdir() if path.is_dir() and path.name != SOURCE)
            for folder in (self.folder, *inner):
                folder.chmod(0o755 if yes else 0o555)


@contextlib.contextmanager
def place(root: Path) -> Iterator[Place]:
    """A place in ``root``: on a disk in memory if this process may mount one, which only it then sees."""
    why = _mount(root)
    made = Place(root, not why, why)
    try:
        yield made
    finally:
        made.free()
        made.writable(True)
        if made.is_disk:
            subprocess.run(["umount", "-l", str(root)], check=False, capture_output=True)


def _mount(root: Path) -> str:
    """Mount a disk in memory; why not, or an empty text."""
    if os.geteuid() != 0:
        return "a disk of its own needs root"
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNS):  # so that the mount ends with this process, however that ends
        return f"a disk of its own: {os.strerror(ctypes.get_errno())}"
    for command in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(root)],
    ):
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            return f"a disk of its own: {error}"
        if done.returncode:
            return f"a disk of its own: {done.stderr.strip()}"
    return ""


def obey_permissions() -> None:
    """Called in a job's process before it begins: permissions hold for it, also if it is root's."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None)
        for capability in _CAP_DAC:
            library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def give_up_rights() -> None:
    """The same for a process that does not begin but is a copy of another."""
    if os.geteuid() == 0:
        kept = ~sum(1 << capability for capability in _CAP_DAC)
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)()
        library = ctypes.CDLL(None)
        library.capget(header, sets)
        for place in (0, 1):  # effective and permitted, of the first 32
            sets[place] &= kept & 0xFFFFFFFF
        library.capset(header, sets)


def permissions_hold() -> str:
    """Why permissions would not hold for a job of this process's, or an empty text."""
    if os.geteuid() != 0:
        return ""
    with open("/proc/self/status", encoding="ascii") as file:
        (effective,) = (int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    may_drop = effective >> 8 & 1  # CAP_SETPCAP
    return "" if may_drop else "root that may not give up its right to write everywhere"
