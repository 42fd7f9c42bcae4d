"""Plain text as numbered words, for language models."""

from __future__ import annotations

import gzip
import math
import os
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError

END_OF_LINE, UNKNOWN = "<eos>", "<unk>"


def read_words(path: str | Path) -> list[str]:
    """The words of a text file, .txt or .gz, split at white space, with ``<eos>`` at the end of each line.

    Raises:
        UserError: The file is absent, unreadable, not text, or holds no word.
    """
    path = Path(os.path.expanduser(path))
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz" or raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a plain text file, .txt or .gz") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give a plain text file, .txt or .gz") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    words = [word for line in text.splitlines() if line.strip() for word in (*line.split(), END_OF_LINE)]
    if not words:
        raise UserError(f"{path}: holds no word")
    return words


class Vocabulary:
    """The most frequent words of a text, numbered by their rank; all others are ``<unk>``.

    Args:
        words: The text.
        size: Largest number of words kept, ``<unk>`` included; None keeps all.
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
    """``n`` random sequences of ``steps`` words and, for each word of them, the next: both ``[n, steps]``.

    They start at different places, the same for the same seed, and may overlap.

    Raises:
        UserError: The text is too short.
    """
    if len(tokens) < n + steps:
        raise UserError(
            f"a text of {len(tokens)} words has no {n} different sequences of {steps} words and the next; "
            "give a longer text, or fewer or shorter sequences"
        )
    starts = np.array(random.Random(seed).sample(range(len(tokens) - steps), n))
    pieces = tokens[starts[:, None] + np.arange(steps + 1)]
    return np.ascontiguousarray(pieces[:, :-1]), np.ascontiguousarray(pieces[:, 1:])


def unigram_perplexity(training: NDArray[np.int64], text: NDArray[np.int64], words: int) -> float:
    """exp(-1/n sum_t ln p(w_t)), p(w) = (count(w) + 1) / (N + words) over the N words of ``training``.

    What a model reaches that knows how frequent words are and nothing of their order.
    """
    counts = np.bincount(training, minlength=words) + 1.0
    return math.exp(-float(np.log(counts[text] / counts.sum()).mean()))
