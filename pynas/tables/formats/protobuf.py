"""The part of the protocol buffers wire format that messages of numbers need.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Every field as (number, wire type, value): an integer for VARINT, raw bytes for the other types.

    Raises:
        ValueError: The message is cut short or has a wire type that does not exist.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        kind = key & 7
        value: int | bytes
        if kind == VARINT:
            value, position = _varint(message, position)
        else:
            if kind == LENGTH:
                size, position = _varint(message, position)
            elif kind in (FIXED64, FIXED32):
                size = 8 if kind == FIXED64 else 4
            else:
                raise ValueError(f"a field of the unknown wire type {kind}")
            if position + size > end:
                raise ValueError("the message is cut short")
            value = message[position : position + size]
            position += size
        yield key >> 3, kind, value


def double(value: int | bytes) -> float:
    """The number in a FIXED64 field; ValueError for a field of another type."""
    if not isinstance(value, bytes) or len(value) != 8:
        raise ValueError("expected a double")
    return float(_DOUBLE.unpack(value)[0])


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("the message is cut short")
