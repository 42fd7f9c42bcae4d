"""TFRecord files: ``length (8 bytes), its checksum (4), data, checksum of the data (4)``, again and again."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pynas._errors import UserError
from pynas.benchmarks._formats.crc32c import crc32c, crc32c_many, mask

_BATCH = 4096
_LARGEST_RECORD = 1 << 26  # 64 MiB; a row of NAS-Bench-101 has some 400 bytes


def batches(path: Path, file: BinaryIO) -> Iterator[list[bytes]]:
    """The records of an open file in batches, every checksum verified before a record is handed out.

    Raises:
        UserError: The file is no TFRecord file, is cut short, or a checksum differs; the message names the
            record and its position.
    """
    first = offset = 0
    records: list[bytes] = []
    checksums: list[int] = []
    positions: list[int] = []
    while head := file.read(12):
        number = first + len(records)
        where = f"{path}: record {number} at byte {offset}"
        if len(head) < 12:
            raise UserError(f"{where}: the file is cut short")
        length, length_checksum = struct.unpack("<QI", head)
        if mask(crc32c(head[:8])) != length_checksum:
            hint = "this is no TFRecord file, or it is damaged" if number == 0 else "the file is damaged"
            raise UserError(f"{where}: the checksum of its length is wrong: {hint}")
        if length > _LARGEST_RECORD:
            raise UserError(f"{where}: has {length} bytes, more than any row of a benchmark")
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise UserError(f"{where}: the file is cut short")
        records.append(body[:length])
        checksums.append(int.from_bytes(body[length:], "little"))
        positions.append(offset)
        offset += length + 16
        if len(records) == _BATCH:
            yield _verified(path, first, positions, records, checksums)
            first += _BATCH
            records, checksums, positions = [], [], []
    if records:
        yield _verified(path, first, positions, records, checksums)


def _verified(
    path: Path, first: int, positions: list[int], records: list[bytes], checksums: list[int]
) -> list[bytes]:
    crc = crc32c_many(records).astype(np.uint64)
    masked = (((crc >> np.uint64(15)) | (crc << np.uint64(17))) + np.uint64(mask(0))) & np.uint64(0xFFFFFFFF)
    bad = np.flatnonzero(masked != np.array(checksums, dtype=np.uint64))
    if len(bad):
        at = int(bad[0])
        raise UserError(
            f"{path}: record {first + at} at byte {positions[at]}: the checksum of its data is wrong: the "
            "file is damaged; get it again"
        )
    return records
