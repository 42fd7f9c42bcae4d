"""Chooses of a cross product of parameters the tests that together show each pair of values.

Most faults that only a combination shows are shown by some pair of values (Kuhn, Wallace, Gallo, "Software
fault interactions and implications for software testing", IEEE TSE 2004), and pairs need far fewer rows than
the product: of five parameters with four values 20 or so rather than 1,024. And :func:`spread` chooses of the
calls at which something may fail. ``PYNAS_EVERY_COMBINATION=1`` and ``PYNAS_EVERY_CALL=1``, which ``make
evidence`` sets, run all of both.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Hashable, Sequence

import pytest

Pair = tuple[int, Hashable, int, Hashable]


def pairs(row: Sequence[Hashable]) -> set[Pair]:
    """Each two axes with the values that a row has there."""
    return {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(len(row)), 2)}


def covering(rows: Sequence[Sequence[Hashable]]) -> list[int]:
    """Which rows to take, ascending, so that each pair of values in any row is in one that is taken.

    Greedy: the row with the most pairs that none has shown yet, the first of equals, so the same rows always
    give the same choice. Rows of two axes are all taken, as far as they differ.

    Raises:
        ValueError: Rows differ in length, or have fewer than two axes.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or min(lengths, default=2) < 2:
        raise ValueError(f"rows: expected one length of at least 2, got {sorted(lengths)}")
    left = [pairs(row) for row in rows]
    missing = set[Pair]().union(*left)
    chosen = []
    while missing:
        best = max(range(len(rows)), key=lambda i: len(left[i]))
        chosen.append(best)
        new = left[best]
        missing -= new
        left = [each - new for each in left]
    return sorted(chosen)


def axes(item: pytest.Item) -> dict[tuple[str, ...], tuple[int, ...]]:
    """What a test was given: the value of each parameter, those of one ``parametrize`` together.

    Values are told apart by identity: not all have an equality, and those of one list are kept by it.
    """
    if not hasattr(item, "callspec"):
        return {}
    left = {name: id(value) for name, value in item.callspec.params.items()}
    found = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        together = tuple(name for name in names if name in left)
        if together:
            found[together] = tuple(left.pop(name) for name in together)
    return found | {(name,): (value,) for name, value in left.items()}


def left_out(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests of three axes or more whose pairs of values others of the same function show."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    found = []
    for same in functions.values():
        rows = [axes(item) for item in same] if len(same) > 1 else [{}]
        if len(rows[0]) > 2:
            taken = set(covering([tuple(row[name] for name in rows[0]) for row in rows]))
            found += [item for i, item in enumerate(same) if i not in taken]
    return found


def spread(count: int, most: int = 24) -> list[int]:
    """Of ``range(count)``, ``most`` numbers spread over all of it, the first and the last among them.

    One of each of as many equal parts, drawn from a generator that ``count`` seeds: even steps would meet the
    same line of a loop over layers again and again.
    """
    if count <= most or os.environ.get("PYNAS_EVERY_CALL") == "1":
        return list(range(count))
    rng = random.Random(count)
    inner = (rng.randrange(i * count // most, (i + 1) * count // most) for i in range(1, most - 1))
    return [0, *inner, count - 1]
