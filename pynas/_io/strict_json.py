"""JSON that somebody may have changed or cut: read strictly, or refused with a short reason."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pynas._errors import UserError
from pynas._io.files import open_regular, shortened, size_of

SUM = "sha256"
"""The name, in an object, of the sum of all else in it."""

LARGEST = 1 << 26  # bytes of a file; what pynas writes has thousands of them, seldom millions

_DIGITS = 300  # of an integer: one that no float could hold would fail later, where nobody expects it
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # half of a surrogate pair, or a whole pair


def loads(text: str) -> Any:
    """The value of ``text``: objects, lists, text, integers, finite floats, booleans and None.

    Refused are what JSON leaves open and Python reads all the same: NaN and infinities, numbers beyond the
    range of floats, a name that comes twice in an object, halves of surrogate pairs; and nesting that is too
    deep for Python.

    Raises:
        ValueError: It is no such JSON; one line says what is wrong.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a surrogate pair") from None
    return value


def read(path: Path, what: str, *, hint: str = "", largest: int = LARGEST) -> Any:
    """The value in a file of UTF-8 text, as :func:`loads` reads it.

    Args:
        path: The file.
        what: What it should be, for the message ("a latency table").
        hint: What to do if there is no file, to end the message with.
        largest: Bytes that it may have.

    Raises:
        UserError: It is absent, no regular file, larger than that (64 MiB by default), or no JSON.
    """
    try:
        return loads(_content(path, what, hint, largest).decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not {what}: it is not UTF-8 text (byte {error.start})") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: not {what}: {error}") from None


def read_lines(path: Path, what: str) -> list[Any]:
    """The values in a file of one on each line; lines that are none, such as half of one, are left out.

    Raises:
        UserError: It is absent, no regular file, or larger than 64 MiB.
    """
    found = []
    for line in _content(path, what).splitlines():
        with contextlib.suppress(ValueError):
            found.append(loads(line.decode()))
    return found


def _content(path: Path, what: str, hint: str = "", largest: int = LARGEST) -> bytes:
    with open_regular(path, hint) as file:
        size = size_of(file)
        if size > largest:
            raise UserError(f"{path}: not {what}: {size} bytes are more than one ever has")
        try:
            return file.read(largest)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def signed(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with a sum of all else in it; ValueError for what JSON has no name for."""
    rest = {name: value for name, value in record.items() if name != SUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return rest | {SUM: hashlib.sha256(text.encode()).hexdigest()}


def check_sum(record: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``record``, read from a file, is what :func:`signed` gave."""
    if record.get(SUM) != signed(record)[SUM]:
        raise ValueError("its contents do not have the sum that it was written with")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {shortened(twice)!r} comes twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shortened(text)} is beyond the range of floats")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")
