"""CRC-32C (Castagnoli), the checksum of TFRecord files: RFC 3720, appendix B.4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # bit-reversed 0x1EDC6F41
_MASK_DELTA = 0xA282EAD8


def _byte_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _byte_table()
_TABLE_LIST: list[int] = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """CRC-32C of ``data``; for a few bytes only, otherwise use :func:`crc32c_many`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE_LIST[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """The form in which TFRecord files hold a checksum: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c_many(records: list[bytes]) -> NDArray[np.uint32]:
    """CRC-32C of each record: one step per byte position over all records at once."""
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    data = np.frombuffer(b"".join(records), dtype=np.uint8)
    crc = np.full(len(records), 0xFFFFFFFF, dtype=np.uint32)
    # Longest first, so that the records with a further byte are always the first ones.
    active_at = np.searchsorted(-lengths[order], -np.arange(lengths.max(initial=0)), side="left")
    for position, active in enumerate(active_at.tolist()):
        part = crc[:active]
        crc[:active] = _TABLE[(part ^ data[starts[:active] + position]) & 0xFF] ^ (part >> 8)
    result = np.empty_like(crc)
    result[order] = crc ^ np.uint32(0xFFFFFFFF)
    return result
