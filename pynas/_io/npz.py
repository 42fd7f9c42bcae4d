"""Reading NumPy archives that other people wrote.

An archive is a zip file of arrays. Here they can be numbers and strings alone, and what an array says of its
shape is held against its bytes before memory is asked for.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError, printable
from pynas._io.files import open_regular, shortened, size_of, unpacked_limit
from pynas._io.zip_archive import open_member, open_zip

_LEAST_LIMIT = 1 << 29  # bytes of arrays that any archive may unpack to: a table may be nearly all NaN
_MOST_ARRAYS = 4096
_LONGEST_NAME = 200
_MOST_EMPTY = 1 << 20  # rows, say, of arrays without an element
_PIECE = 1 << 20
_SUFFIX = ".npy"

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 12
_DESCRIPTION = re.compile(r"['\"]descr['\"]\s*:\s*['\"]([<>|=]?[biufcSU]\d{1,8})['\"]")
_ORDER = re.compile(r"['\"]fortran_order['\"]\s*:\s*(True|False)")
_SHAPE = re.compile(r"['\"]shape['\"]\s*:\s*\(([\d\s,L]*)\)", re.ASCII)
_HIGHEST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class Archive:
    """The arrays of an archive, read as they are taken out.

    Attributes:
        files: Their names.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int) -> None:
        self._path, self._archive, self._size = path, archive, size
        self._left = unpacked_limit(size, _LEAST_LIMIT)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(_SUFFIX)
            if name == member.filename:
                continue  # a note, a folder
            if name in self._members:
                raise self._fault(f"two arrays are called {name!r}")
            if len(name) > _LONGEST_NAME or printable(name) != name:
                raise self._fault(f"a name is none of an array: {name!r}")
            self._members[name] = member
        if len(self._members) > _MOST_ARRAYS:
            raise self._fault(
                f"it has {len(self._members)} arrays, more than the {_MOST_ARRAYS} of any table"
            )
        self.files = tuple(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of this name, in the byte order of this machine.

        Raises:
            UserError: It is damaged, no array of numbers or strings, or larger than any table.
        """
        try:
            return self._read(name)
        except UserError:
            raise
        except Exception as error:  # a damaged archive raises whatever its broken structure leads to
            raise self._fault(f"{name}: {error or type(error).__name__}") from error

    def all(self) -> dict[str, NDArray[Any]]:
        """Every array."""
        size = sum(member.file_size for member in self._members.values())
        if size > self._left:
            raise self._fault(
                f"its arrays have {size} bytes, more than those of a file of {self._size} bytes may"
            )
        return {name: self[name] for name in self.files}

    def _read(self, name: str) -> NDArray[Any]:
        member = self._members[name]
        if member.file_size > self._left:
            raise ValueError(
                f"has {member.file_size} bytes, more than an archive of {self._size} bytes may have"
            )
        self._left -= member.file_size
        with open_member(self._archive, member) as file:
            return _read_array(file, member.file_size)

    def _fault(self, what: str) -> UserError:
        return UserError(f"{self._path}: not a readable .npz archive: {shortened(what)}")


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Open an ``.npz`` archive; arrays are read as they are taken out.

    Raises:
        UserError: The file is absent, is no archive, or is damaged.
    """
    with open_regular(path) as file:
        try:
            archive = open_zip(file)
        except ValueError as error:
            raise UserError(f"{path}: not an .npz archive: {error}") from error
        with archive:
            yield Archive(path, archive, size_of(file))


def _read_array(file: IO[bytes], size: int) -> NDArray[Any]:
    """One array of ``size`` bytes with its header.

    Raises:
        ValueError: It is not that.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError("is no array")
    length = struct.Struct("<H" if start[6] == 1 else "<I")
    (header_size,) = length.unpack(file.read(length.size))
    if header_size > _LONGEST_HEADER:
        raise ValueError(f"has a header of {header_size} bytes, as no array of numbers or strings has")
    dtype, is_fortran, shape = _parse(file.read(header_size).decode("latin1"))
    data = size - len(start) - length.size - header_size
    # A dimension of zero leaves room for any other, as does an element of no bytes.
    elements = math.prod(length or 1 for length in shape)
    if math.prod(shape) * dtype.itemsize != data or elements > max(data, _MOST_EMPTY):
        raise ValueError(f"does not fit its {data} bytes: it is {dtype} of shape {list(shape)}")
    array = np.empty(math.prod(shape), dtype)
    octets, at = array.view(np.uint8) if data else np.empty(0, np.uint8), 0
    while at < data:
        piece = file.read(min(_PIECE, data - at))
        if not piece:
            raise ValueError("is cut short")
        octets[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if dtype.kind == "U" and data:
        _check_characters(array)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape[::-1]).transpose() if is_fortran else array.reshape(shape)


def _parse(header: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Type, order and shape out of an array's header."""
    description, order, shape = (pattern.search(header) for pattern in (_DESCRIPTION, _ORDER, _SHAPE))
    if description is None:
        raise ValueError("is no array of numbers or strings (its objects or records are not read)")
    if order is None or shape is None:
        raise ValueError("has a damaged header")
    sizes = tuple(int(text.strip().rstrip("L")) for text in shape[1].split(",") if text.strip())
    if len(sizes) > 32:
        raise ValueError(f"has {len(sizes)} dimensions")
    return np.dtype(description[1]), order[1] == "True", sizes


def _check_characters(strings: NDArray[Any]) -> None:
    """Refuse what is no character: NumPy would fail later, where nobody knows of which file."""
    codes = strings.view(np.dtype(np.uint32).newbyteorder(strings.dtype.byteorder))
    is_half = (codes >= _SURROGATES.start) & (codes < _SURROGATES.stop)
    if codes.max(initial=0) > _HIGHEST_CHARACTER or is_half.any():
        raise ValueError("has a text with what is no character")
