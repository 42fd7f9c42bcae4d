from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import FIRST, ROOT
from tests.thinning import axes, covering, left_out, pairs, spread


@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 4, 4, 4, 4), (7, 3, 5), (9, 1, 2, 6), (1, 1, 1), (13, 5)])
def test_every_pair_of_values_is_shown(sizes: tuple[int, ...]) -> None:
    rows = list(itertools.product(*map(range, sizes)))
    chosen = covering(rows)
    shown = {pair for i in chosen for pair in pairs(rows[i])}
    for (i, m), (j, n) in itertools.combinations(enumerate(sizes), 2):
        assert {(i, a, j, b) for a in range(m) for b in range(n)} <= shown
    small, large = sorted(sizes)[-2:]
    assert small * large <= len(chosen) <= 1.6 * small * large + 2


def test_a_product_with_holes_shows_what_it_has() -> None:
    rng = random.Random(3)
    rows = [row for row in itertools.product("abcd", "efg", "hijkl", "mn") if rng.random() < 0.3]
    chosen = covering(rows)
    assert {pair for i in chosen for pair in pairs(rows[i])} == {pair for row in rows for pair in pairs(row)}
    assert len(chosen) < len(rows)


def test_every_process_chooses_the_same() -> None:
    rows = list(itertools.product("abc", "def", "ghi", "jkl"))
    others = {letter: object() for letter in "abcdefghijkl"}
    renamed = [tuple(others[letter] for letter in row) for row in rows]
    assert covering(rows) == covering(renamed), "the order of hashes plays no part"
    assert covering([]) == []
    assert covering([("a", "b"), ("a", "c"), ("a", "b")]) == [0, 1]


@pytest.mark.parametrize("rows", [[("a", "b"), ("a", "b", "c")], [("a",)]])
def test_rows_that_have_no_pairs_are_refused(rows: list[tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="rows: expected one length of at least 2, got"):
        covering(rows)


def made(function: str, **parametrized: list[Any]) -> list[Any]:
    """Tests as pytest collects them; ``a_b`` is a parametrisation of two parameters at once."""
    marks = [
        pytest.mark.parametrize(names.replace("_", ", "), values).mark
        for names, values in parametrized.items()
    ]
    found = []
    for values in itertools.product(*parametrized.values()):
        params: dict[str, Any] = {}
        for names, value in zip(parametrized, values, strict=True):
            params |= dict(zip(names.split("_"), value, strict=True)) if "_" in names else {names: value}
        callspec = SimpleNamespace(params=params)
        nodeid = f"test_file.py::{function}[{len(found)}]"
        found.append(SimpleNamespace(nodeid=nodeid, callspec=callspec, iter_markers=lambda _: marks))
    return found


def test_parameters_of_one_list_are_one_axis() -> None:
    values: list[Any] = [[1], [2]]  # that have no hash
    (item,) = made("test", a_b=[(values[0], values[1])], c=[values[0]])
    assert axes(item) == {("a", "b"): (id(values[0]), id(values[1])), ("c",): (id(values[0]),)}
    plain: Any = SimpleNamespace(nodeid="test_file.py::plain")
    assert axes(plain) == {}


def test_what_starts_first_is_there() -> None:
    assert [name for name in FIRST if not (ROOT / "tests" / f"{name}.py").is_file()] == []


def test_what_is_left_out() -> None:
    three = made("three", a=[1, 2, 3], b_c=[(1, 1), (1, 2), (2, 2), (2, 1)], d=[True, False])
    two = made("two", a=[1, 2, 3], b_c=[(1, 1), (1, 2), (2, 2), (2, 1)])
    plain: Any = SimpleNamespace(nodeid="test_file.py::plain")
    out = left_out([*three, *two, plain])
    assert 8 <= len(out) <= 12
    assert all(item in three for item in out)
    assert left_out([item for item in three if item not in out]) == []
    assert left_out(out[:1]) == [], "what is asked for by name runs"


@pytest.mark.parametrize("count", [0, 1, 23, 24, 25, 1000, 1237])
def test_places_are_spread_over_all_calls(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYNAS_EVERY_CALL", raising=False)
    chosen = spread(count)
    assert chosen == sorted(set(chosen)) == spread(count)
    assert len(chosen) == min(count, 24)
    assert set(chosen[:1] + chosen[-1:]) == ({0, count - 1} if count else set())
    assert all(b - a <= 2 * -(-count // 24) for a, b in itertools.pairwise(chosen))
    monkeypatch.setenv("PYNAS_EVERY_CALL", "1")
    assert spread(count) == list(range(count))
