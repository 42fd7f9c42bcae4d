"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pynas._errors import UserError

# Names of what is open already; opened by its name, a redirected file would be written from its beginning.
_OPEN = re.compile(r"/dev/(?P<name>stdout|stderr)|/(?:dev|proc/self)/fd/(?P<number>\d+)")

_partial: set[Path] = set()  # what is being written


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write in place of ``path``, which changes when the ``with`` block has ended without error.

    Until then the content lies beside it under a name of its own. When something fails or the process dies
    ``path`` is what it was; after an error nothing is left over either. A link stays a link, to the new
    content, and a file keeps its mode and, where that may be given, its owner. A pipe, a terminal or another
    device cannot be replaced: it is written as it comes.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        if is_stream(path):
            with _opened_stream(path) as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        # The name is cut so that it does not become longer than a file system takes.
        partial = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.partial")
        _partial.add(partial)
        try:
            with partial.open("xb") as file:
                _take_after(target, file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _flush_names(target.parent)
        finally:
            partial.unlink(missing_ok=True)
            _partial.discard(partial)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {_reason(error)}") from error


def remove_partial() -> None:
    """Remove what :func:`replacing` has begun, in a process that is about to be ended by a signal."""
    for path in _partial:
        with contextlib.suppress(OSError):
            path.unlink()


def append_line(path: Path, line: str, *, parents: bool = False) -> None:
    """Add ``line`` to the end of a file, whole or not at all, after ending one that was cut off there before.

    Args:
        path: The file, made if it is absent.
        line: Text without a line feed.
        parents: Make the folders above it, too.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # a buffer would be written at its end again
            size = file.tell() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
            rest = memoryview((b"" if _ends_a_line(path, size) else b"\n") + line.encode() + b"\n")
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                if size is not None:
                    os.fsync(file.fileno())
            except OSError:
                if size is not None:
                    file.truncate(size)
                raise
    except OSError as error:
        raise UserError(f"{path}: cannot write: {_reason(error)}") from error


def check_output(path: Path, argument: str, *, suffix: str = "", parents: bool = False) -> None:
    """Raise UserError, before any work is done, if ``path`` cannot become a file.

    Args:
        path: The file to be written.
        argument: What messages call it, such as ``--report``.
        suffix: How its name has to end.
        parents: Folders above it are made when it is written.
    """
    if suffix and path.suffix != suffix:
        raise UserError(f"{argument}: expected a file name that ends in {suffix}, got {str(path)!r}")
    with _explained(path, argument):
        number = _open_number(path)
        if number is not None:
            os.fstat(number)
            return
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise UserError(f"{argument}: {path} is a folder; give the name of a file in it")
        exists = _exists(target)
        if exists and not os.access(target, os.W_OK):
            raise UserError(f"{argument}: {path} is there and may not be written; give another name")
        if not exists or target.is_file():
            _check_folder(target.parent, argument, parents)


def check_output_folder(path: Path, argument: str, *, parents: bool = False) -> None:
    """Raise UserError, before any work is done, if files cannot be written into ``path``, made where absent.

    Args:
        path: The folder.
        argument: What messages call it, such as ``--checkpoint``.
        parents: Folders above it are made, too.
    """
    with _explained(path, argument):
        target = Path(os.path.realpath(path))
        exists = _exists(target)
        if exists and not target.is_dir():
            raise UserError(f"{argument}: {path} is no folder; give one")
        _check_folder(target if exists else target.parent, argument, parents)


def _check_folder(folder: Path, argument: str, parents: bool) -> None:
    while parents and not _exists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{argument}: no such folder: {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{argument}: the folder {folder} may not be written; give another")


@contextmanager
def _explained(path: Path, argument: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long, links in a circle, a zero byte
        raise UserError(f"{argument}: {str(path)!r} cannot be a file: {_reason(error)}") from error


def _exists(path: Path) -> bool:
    """As :meth:`Path.exists`, which also calls absent what cannot be looked at."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def is_stream(path: Path) -> bool:
    """Whether it is there and neither a file nor a folder, so that it is written directly."""
    if _open_number(path) is not None:
        return True
    return _exists(path) and not path.is_file() and not path.is_dir()


def _open_number(path: Path) -> int | None:
    match = _OPEN.fullmatch(os.path.abspath(path))
    if match is None:
        return None
    return {"stdout": 1, "stderr": 2}[match["name"]] if match["name"] else int(match["number"])


def _opened_stream(path: Path) -> BinaryIO:
    number = _open_number(path)
    if number is None:
        return path.open("wb")
    sys.stdout.flush()  # what was printed before comes first
    return os.fdopen(os.dup(number), "wb")


def _take_after(target: Path, handle: int) -> None:
    """Give the open file the mode and the owner that ``target`` has, if it is there."""
    if not _exists(target):
        return
    old = target.stat()
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):
            os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))  # after the owner, whose change would clear bits


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can: a power cut may take them."""
    with contextlib.suppress(OSError):  # a folder that may be written and not read, a file system without it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _ends_a_line(path: Path, size: int | None) -> bool:
    if not size:
        return True
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
