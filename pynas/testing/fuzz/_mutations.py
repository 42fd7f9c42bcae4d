"""Inputs changed at random."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

LARGEST = 1 << 16
"""Bytes of an input."""

_NUMBER = re.compile(rb"-?[0-9]+")
_NUMBERS = (b"0", b"-1", b"1", b"2147483648", b"18446744073709551616", b"1e308", b"1e999", b"nan", b"9" * 50)


def mutated(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    """``raw`` after one to five changes: bits, bytes, pieces removed, copied or put in."""
    for _ in range(1 + min(rng.getrandbits(3), rng.getrandbits(2) + 1)):
        raw = rng.choice(_CHANGES)(raw, pool, tokens, rng)
    return raw[:LARGEST]


def _piece(raw: bytes, rng: random.Random) -> tuple[int, int]:
    """Where a piece begins and ends, a short one mostly."""
    begin = rng.randrange(len(raw) + 1)
    return begin, min(len(raw), begin + round(len(raw) ** rng.random()))


def _bit(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    if not raw:
        return rng.randbytes(1)
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]


def _bytes(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.randbytes(rng.randrange(1, 9)) + raw[at + rng.randrange(9) :]


def _removed(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    begin, end = _piece(raw, rng)
    return raw[:begin] + raw[end:]


def _repeated(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    begin, end = _piece(raw, rng)
    return raw[:end] + raw[begin:end] * rng.choice((1, 1, 2, 40)) + raw[end:]


def _token(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    begin, end = _piece(raw, rng)
    return raw[:begin] + rng.choice(tokens or _NUMBERS) + raw[rng.choice((begin, end)) :]


def _number(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(raw))
    if not found:
        return _bit(raw, pool, tokens, rng)
    match = rng.choice(found)
    return raw[: match.start()] + rng.choice(_NUMBERS) + raw[match.end() :]


def _crossed(raw: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(pool)
    begin, end = _piece(other, rng)
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + other[begin:end] + raw[rng.choice((at, min(len(raw), at + end - begin))) :]


_CHANGES = (_bit, _bytes, _removed, _repeated, _token, _number, _crossed)
