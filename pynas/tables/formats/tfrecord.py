"""TFRecord files: repeated ``length (8 bytes), its checksum (4), data, checksum of the data (4)``."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from pynas._errors import UserError
from pynas._io.files import Bounded
from pynas._plural import counted

_BATCH_RECORDS, _BATCH_BYTES = 4096, 1 << 22
_LARGEST_RECORD = 1 << 20  # a row of NAS-Bench-101 has about 400 bytes
_MASK_DELTA = 0xA282EAD8


def batches(path: Path, file: Bounded) -> Iterator[list[bytes]]:
    """The records of an open file in batches, each after a check of its checksums.

    Raises:
        UserError: The file is not a TFRecord file or is truncated, or a checksum differs; the message names
            the record and its position. Or the package that computes checksums is absent.
    """
    crc32c = _crc32c()
    number = offset = size = 0
    records: list[bytes] = []
    while head := file.read(12):
        where = f"{path}: record {number} at byte {offset}"
        if len(head) < 12:
            raise UserError(f"{where}: the file is cut short")
        length, checksum = struct.unpack("<QI", head)
        if masked(crc32c(head[:8])) != checksum:
            hint = "this is no TFRecord file, or it is damaged" if number == 0 else "the file is damaged"
            raise UserError(f"{where}: the checksum of its length is wrong: {hint}")
        if length > _LARGEST_RECORD:
            raise UserError(f"{where}: has {counted(length, 'byte')}, more than any row of a benchmark")
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise UserError(f"{where}: the file is cut short")
        record = body[:length]
        if masked(crc32c(record)) != int.from_bytes(body[length:], "little"):
            raise UserError(f"{where}: the checksum of its data is wrong: the file is damaged; get it again")
        records.append(record)
        number, offset, size = number + 1, offset + length + 16, size + length
        if len(records) == _BATCH_RECORDS or size >= _BATCH_BYTES:
            yield records
            records, size = [], 0
    if records:
        yield records


def masked(crc: int) -> int:
    """The form in which TFRecord files hold a checksum: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _crc32c() -> Callable[[bytes], int]:
    try:
        import google_crc32c
    except ImportError:
        raise UserError(
            "TFRecord files: their checksums need the package google-crc32c; install it with: "
            "pip install 'pynas-torch[tables]'"
        ) from None
    value: Callable[[bytes], int] = google_crc32c.value
    return value
