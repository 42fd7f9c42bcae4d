"""Columns of a page as data: numbers as typed arrays in base64, texts by their words.

A page holds each number in as few bytes as keep seven digits of it, and each word of an architecture's text
once, so that tens of thousands of architectures are a megabyte; ``static/data.js`` reads it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import printable

_WORDS = re.compile(r"[\w.]+|[^\w.]+")
_INTEGERS = ("i1", "u1", "i2", "u2", "i4")
_DIGITS = 7  # that a page keeps of a number


def packed(values: NDArray[Any]) -> dict[str, str]:
    """An array as its type and its little-endian bytes in base64."""
    kind = values.dtype.newbyteorder("<")
    return {
        "dtype": f"{kind.kind}{kind.itemsize}",
        "data": base64.b64encode(values.astype(kind).tobytes()).decode("ascii"),
    }


def numbers(values: Sequence[float | None]) -> dict[str, str]:
    """Numbers, NaN or None where one is not known, in the smallest type that keeps seven digits of each."""
    wide = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    wide[~np.isfinite(wide)] = np.nan
    if np.array_equal(wide, np.round(wide)):  # False with a NaN
        for kind in _INTEGERS:
            limits = np.iinfo(kind)
            if len(wide) == 0 or (wide.min() >= limits.min and wide.max() <= limits.max):
                return packed(wide.astype(kind))
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    keeps = all(_shown(a) == _shown(b) for a, b in zip(narrow.tolist(), wide.tolist(), strict=True))
    return packed(narrow if keeps else wide)


def _shown(value: float) -> str:
    return f"{value:.{_DIGITS}g}"


def texts(values: Sequence[str]) -> dict[str, Any]:
    """Texts, control characters spelled out.

    One of three forms: the different texts and which each is; where all have as many words, the words at
    each place and which each has there; else all words in a row, and how many each text has.
    """
    spelled = [printable(value) for value in values]
    distinct, at = _coded(spelled)
    if 2 * len(distinct) <= len(spelled) or len(spelled) < 2:
        return {"words": distinct, "at": packed(at)}
    rows = [_WORDS.findall(text) for text in spelled]
    lengths = {len(row) for row in rows}
    if len(lengths) == 1:
        fixed: list[str | None] = []
        varying = []
        for place in zip(*rows, strict=True):
            words, at = _coded(place)
            fixed.append(words[0] if len(words) == 1 else None)
            if len(words) > 1:
                varying.append({"words": words, "at": packed(at)})
        return {"fixed": fixed, "varying": varying}
    words, at = _coded([word for row in rows for word in row])
    return {
        "words": words,
        "lengths": packed(np.array([len(row) for row in rows], dtype=np.uint32)),
        "at": packed(at),
    }


def _coded(values: Sequence[str]) -> tuple[list[str], NDArray[Any]]:
    """The different values in the order of their first place, and the number of each value among them."""
    numbered: Mapping[str, int] = {word: i for i, word in enumerate(dict.fromkeys(values))}
    kind = np.uint8 if len(numbered) <= 1 << 8 else np.uint16 if len(numbered) <= 1 << 16 else np.uint32
    return list(numbered), np.array([numbered[value] for value in values], dtype=kind)
