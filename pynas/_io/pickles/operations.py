"""The instructions of a pickle, one after the other, without executing any.

Protocols 2 to 5 as :mod:`pickletools` documents them, less what tables never need (text opcodes, extension
codes, out-of-band buffers).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

from pynas._io.files import Bounded

_BLOCK = 1 << 18
# No table has strings or numbers of so many bytes, but a damaged length may say so.
_LARGEST_ITEM = 1 << 26
_LARGEST_NUMBER = 1 << 8

# Opcodes without an argument.
PLAIN = frozenset(b".(0N\x88\x89]ae)t\x85\x86\x87}su\x8f\x90\x91RbQ\x81\x93\x94012l")
# Opcode to (bytes of the argument, how to read it).
_FIXED: dict[int, struct.Struct] = {
    ord(code): struct.Struct(layout)
    for code, layout in {
        "G": ">d", "J": "<i", "M": "<H", "j": "<I", "r": "<I", "\x95": "<Q",
    }.items()
}  # fmt: skip
_OF_A_BYTE = frozenset(b"Khq\x80")
_TEXT = {ord("X"): "<I", 0x8C: "<B", 0x8D: "<Q"}
_BYTES = {ord("C"): "<B", ord("B"): "<I", 0x8E: "<Q", ord("U"): "<B", ord("T"): "<i"}
_LONG = {0x8A: "<B", 0x8B: "<i"}
_COUNTED = {code: struct.Struct(layout) for code, layout in (_TEXT | _BYTES | _LONG).items()}
_OLD_STRINGS = frozenset(b"UT")  # str of Python 2
_GLOBAL = ord("c")
_STOP = ord(".")


def operations(file: Bounded, on_read: Callable[[int], None]) -> Iterator[tuple[int, Any]]:
    """Yield ``(opcode, argument)`` of the pickles in ``file``, one pickle after the other, without end.

    Strings come decoded, numbers as numbers, GLOBAL as ``(module, name)``.

    Args:
        file: Read in blocks: what follows the last pickle may be read ahead.
        on_read: Called with the number of bytes of each block; what it raises ends the reading.

    Raises:
        pickle.UnpicklingError: The end of the file, or something that is no instruction.
    """
    buffer, i, end = b"", 0, 0

    def refill(needed: int) -> None:
        nonlocal buffer, i, end
        block = file.read(max(_BLOCK, needed))
        on_read(len(block))
        buffer, i = buffer[i:] + block, 0
        end = len(buffer)
        if end < needed:
            raise pickle.UnpicklingError("the file is cut short")

    while True:
        if end - i < 16:
            try:
                refill(16)
            except pickle.UnpicklingError:  # the last instructions may be shorter
                if i >= end:
                    raise
        code = buffer[i]
        i += 1
        if code in _OF_A_BYTE:
            if i >= end:
                raise pickle.UnpicklingError("the file is cut short")
            i += 1
            yield code, buffer[i - 1]
        elif code in _FIXED:
            layout = _FIXED[code]
            if end - i < layout.size:
                raise pickle.UnpicklingError("the file is cut short")
            argument = layout.unpack_from(buffer, i)[0]
            i += layout.size
            yield code, argument
        elif code in PLAIN:
            yield code, None
        elif code in _COUNTED:
            layout = _COUNTED[code]
            if end - i < layout.size:
                raise pickle.UnpicklingError("the file is cut short")
            size = layout.unpack_from(buffer, i)[0]
            i += layout.size
            if not 0 <= size <= (_LARGEST_NUMBER if code in _LONG else _LARGEST_ITEM):
                raise pickle.UnpicklingError(f"an item of {size} bytes")
            if end - i < size:
                refill(size)
            raw = buffer[i : i + size]
            i += size
            if code in _TEXT:
                yield code, _text(raw)
            elif code in _LONG:
                yield code, int.from_bytes(raw, "little", signed=True)
            else:
                yield code, raw.decode("latin1") if code in _OLD_STRINGS else raw
        elif code == _GLOBAL:
            lines = []
            for _ in range(2):
                while (stop := buffer.find(b"\n", i)) < 0:
                    if end - i > 1024:
                        raise pickle.UnpicklingError("a name without an end")
                    refill(end - i + 1)
                lines.append(_text(buffer[i:stop]))
                i = stop + 1
            yield code, tuple(lines)
        else:
            raise pickle.UnpicklingError(f"the unknown instruction {code:#04x}")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise pickle.UnpicklingError("a text that is no UTF-8") from None
