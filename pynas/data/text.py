"""Plain text as numbered words, for language models."""

from __future__ import annotations

import math
import os
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import open_regular, size_of, unpacked_limit
from pynas._plural import counted

END_OF_LINE, UNKNOWN = "<eos>", "<unk>"

_LARGEST = 1 << 30  # bytes of a text
_LONG_LINE = 1 << 20  # longer lines, in characters, are split lazily
_WORD = re.compile(r"\S+")


def read_words(path: str | Path) -> list[str]:
    """The words of a text file, .txt or .gz, split at white space, with ``<eos>`` at the end of each line.

    Raises:
        UserError: The file is absent, unreadable, not text, or has no word.
    """
    path = Path(os.path.expanduser(path))
    with open_regular(path, "; give a plain text file, .txt or .gz") as file:
        size = size_of(file)
        if size > _LARGEST:
            raise UserError(f"{path}: has {counted(size, 'byte')}; a text may have at most {_LARGEST:,}")
        try:
            raw = file.read(size)
            if path.suffix == ".gz" or raw[:2] == b"\x1f\x8b":
                raw = _gunzip(raw, min(_LARGEST, unpacked_limit(size)))
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
        except (OSError, ValueError, zlib.error) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
    del raw
    words = list(_words(text))
    if not words:
        raise UserError(f"{path}: has no word")
    return words


def _gunzip(raw: bytes, limit: int) -> bytes:
    """Unpack all streams of ``raw``; ValueError if it is damaged or unpacks to more than ``limit`` bytes."""
    pieces: list[bytes] = []
    while raw:
        unpacker = zlib.decompressobj(wbits=31)
        pieces.append(unpacker.decompress(raw, limit + 1))
        limit -= len(pieces[-1])
        if limit < 0:
            raise ValueError("it unpacks to more than a text of its size may")
        if not unpacker.eof:
            raise ValueError("the compressed file is cut short")
        raw = unpacker.unused_data.lstrip(b"\0")
    return b"".join(pieces)


def _words(text: str) -> Iterator[str]:
    """All words and ends of lines; equal words are the same object."""
    known: dict[str, str] = {}
    for line in text.splitlines():
        word = ""
        for word in line.split() if len(line) < _LONG_LINE else map(re.Match.group, _WORD.finditer(line)):
            yield known.setdefault(word, word)
        if word:
            yield END_OF_LINE


class Vocabulary:
    """The most frequent words of a text, numbered by their rank; all others are ``<unk>``.

    Args:
        words: The text.
        size: Largest number of words to keep, including ``<unk>``; None keeps all.
    """

    def __init__(self, words: Sequence[str], size: int | None = None) -> None:
        counts = Counter(words)
        counts.setdefault(UNKNOWN, 0)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = ranked if size is None else ranked[:size]
        if UNKNOWN not in kept:
            kept = [*kept[:-1], UNKNOWN]
        self.words = tuple(kept)
        self._number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str]) -> NDArray[np.int64]:
        """The number of each word."""
        unknown = self._number[UNKNOWN]
        return np.array([self._number.get(word, unknown) for word in words], dtype=np.int64)


def word_batch(
    tokens: NDArray[np.int64], n: int, steps: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``n`` random sequences of ``steps`` words and, for each of their words, the next: both ``[n, steps]``.

    The starts are distinct and depend only on the seed; sequences may overlap.

    Raises:
        UserError: The text is too short.
    """
    if len(tokens) < n + steps:
        raise UserError(
            f"a text of {counted(len(tokens), 'word')} is too short for {counted(n, 'sequence')} of "
            f"{counted(steps, 'word')} and the next; use a longer text, or fewer or shorter sequences"
        )
    starts = np.array(random.Random(seed).sample(range(len(tokens) - steps), n))
    pieces = tokens[starts[:, None] + np.arange(steps + 1)]
    return np.ascontiguousarray(pieces[:, :-1]), np.ascontiguousarray(pieces[:, 1:])


def unigram_perplexity(training: NDArray[np.int64], text: NDArray[np.int64], words: int) -> float:
    """exp(-1/n sum_t ln p(w_t)), p(w) = (count(w) + 1) / (N + words) over the N words of ``training``.

    The perplexity of a model that knows the frequencies of words but nothing about their order.
    """
    counts = np.bincount(training, minlength=words) + 1.0
    return math.exp(-float(np.log(counts[text] / counts.sum()).mean()))
