"""Reading zip archives that other people made: NumPy's and torch's.

What an archive claims is held against what lies in the file before memory is asked for: a few kilobytes can
say that they hold a petabyte, or unpack to one.
"""

from __future__ import annotations

import zipfile
from typing import IO, BinaryIO, cast

from pynas._io.files import shortened, size_of

_LARGEST_LIST = 1 << 24
_END, _MANY = 22, 0xFFFF  # bytes of the end of an archive; the count that says "look elsewhere"
_DEFLATE_RATIO = 1032  # no stream of deflate makes more of a byte


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in an open file.

    Raises:
        ValueError: It is none, or its list of members is damaged.
    """
    try:
        archive = zipfile.ZipFile(cast(IO[bytes], _InPieces(file)))
    except Exception as error:  # a damaged archive raises whatever its broken structure leads to
        if isinstance(error, zipfile.BadZipFile) and "not a zip file" in str(error):
            raise ValueError("no zip archive") from error
        raise ValueError(f"its list of members is damaged: {_reason(error)}") from error
    if (count := _count(file, len(archive.comment))) not in (len(archive.infolist()), _MANY):
        raise ValueError(f"its list of members has {len(archive.infolist())} of {count}")
    for member in archive.infolist():
        _check(member, size_of(file))
        open_member(archive, member).close()  # its name stands there once more: a damaged one hides it
    return archive


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member to read. What its ``read`` raises is as various as what its first bytes may be.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        return archive.open(member)
    except Exception as error:  # as above
        raise ValueError(f"{shortened(member.filename)}: {_reason(error)}") from error


def _count(file: BinaryIO, comment: int) -> int:
    """How many members there are by the end of the archive; a damaged entry of the list swallows others."""
    file.seek(size_of(file) - _END - comment)
    return int.from_bytes(file.read(_END)[10:12], "little")


def _check(member: zipfile.ZipInfo, size: int) -> None:
    """Refuse a member that cannot be what it says, in a file of ``size`` bytes."""
    name = shortened(member.filename)
    if member.flag_bits & 1:
        raise ValueError(f"{name}: is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: is compressed by a method that neither NumPy nor torch uses")
    ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
    if member.compress_size > size or member.file_size > ratio * member.compress_size:
        raise ValueError(f"{name}: cannot have the {member.file_size} bytes that it claims")


def _reason(error: Exception) -> str:
    return shortened(str(error) or type(error).__name__)


class _InPieces:
    """A file of which nobody reads a large part at once, as :mod:`zipfile` does with the list of members."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable, self._file = file.seek, file.tell, file.seekable, file

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_LIST:
            raise zipfile.BadZipFile(f"{size} bytes")
        return self._file.read(size)
