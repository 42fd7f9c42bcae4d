"""Opening files that other people made, and how much may come out of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, BinaryIO

from pynas._errors import UserError

GROWTH = 64  # times its size that a compressed file may take when it is unpacked
_LEAST = 1 << 25  # bytes that any file may unpack to
_SHOWN = 200  # characters of somebody else's text in a message


def open_regular(path: Path, hint: str = "") -> BinaryIO:
    """Open a file for reading, never anything that could wait for somebody or run on for ever.

    Pipes, devices and sockets are refused unopened: to open a pipe waits for its writer, to open a device may
    set it in motion.

    Args:
        path: The file, or a link to it.
        hint: What to do if there is none, to end the message with.

    Raises:
        UserError: It is absent, no regular file, or may not be read.
    """
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):
            file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
            kind = os.fstat(file.fileno()).st_mode  # it may have been replaced since
            if stat.S_ISREG(kind):
                return file
            file.close()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
    raise UserError(f"{path}: is {what}, expected a file{hint}")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, its position unchanged."""
    return os.fstat(file.fileno()).st_size


def unpacked_limit(size: int, least: int = 0) -> int:
    """Bytes that a compressed file of ``size`` bytes may unpack to: what is more has no place in a table."""
    return max(least or _LEAST, GROWTH * size)


def open_whole(path: Path) -> Bounded:
    """Open a file of which no more is read than it has now, however it grows."""
    file = open_regular(path)
    return Bounded(file, size_of(file), "it grew while it was read", file.close)


class Bounded:
    """A file from which a known number of bytes comes at most.

    Args:
        file: Where they come from.
        limit: How many there may be.
        fault: What is wrong if there are more.
        close: Closes it.
    """

    def __init__(self, file: IO[bytes], limit: int, fault: str, close: Callable[[], object]) -> None:
        self._file, self._left, self._fault, self._close = file, limit, fault, close

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ValueError when there were too many."""
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(self._fault)
        return data

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()


def shortened(text: object) -> str:
    """The beginning of the first line of a text from somebody else's file, for a message."""
    whole = str(text).partition("\n")[0]
    return whole if len(whole) <= _SHOWN else f"{whole[:_SHOWN]}..."


def listed(names: Iterable[object]) -> str:
    """Names from somebody else's file joined by commas, as many as a message has room for."""
    joined, rest = "", [str(name) for name in names]
    while rest and len(joined) + len(rest[0]) < _SHOWN:
        joined += (", " if joined else "") + rest.pop(0)
    if not rest:
        return joined
    return f"{joined}, and {len(rest)} more" if joined else shortened(rest[0])
