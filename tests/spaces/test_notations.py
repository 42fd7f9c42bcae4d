"""Cells in the notations of other projects."""

from __future__ import annotations

import itertools
import random

import pytest

from pynas import Architecture, spaces
from pynas._errors import UserError

CELLS = spaces.get("nasbench201")
DARTS = spaces.get("darts_cnn")
WANTED = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"
EDGES = {
    "0_1": "conv_3x3", "0_2": "none", "1_2": "avg_pool_3x3", "0_3": "none", "1_3": "none", "2_3": "conv_3x3"
}  # fmt: skip
# NAS-Bench-301's operations as its records number them.
NB301 = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
    "dil_conv_5x5",
)  # fmt: skip
RECORD = (
    ((0, 3), (1, 4), (0, 0), (1, 5), (1, 4), (3, 2), (0, 6), (3, 2)),
    ((0, 1), (1, 4), (0, 1), (1, 4), (2, 6), (3, 4), (1, 5), (2, 1)),
)


@pytest.mark.parametrize("order", list(itertools.islice(itertools.permutations(EDGES), 0, 720, 97)))
def test_a_dictionary_in_any_order(order: tuple[str, ...]) -> None:
    found = CELLS.parse(repr({key: EDGES[key] for key in order}))
    assert CELLS.format(found) == WANTED


def test_nodes_may_count_from_one() -> None:
    shifted = {f"{int(k[0]) + 1}_{int(k[2]) + 1}": "nor_" * ("conv" in v) + v for k, v in EDGES.items()}
    assert CELLS.format(CELLS.parse(repr(shifted))) == WANTED


def test_naslibs_numbers() -> None:
    """Edges 1-2, 1-3, 1-4, 2-3, 2-4, 3-4; skip 0, none 1, 3x3 2, 1x1 3, pooling 4."""
    for text in ("naslib:2,1,1,4,1,2", "naslib:(2, 1, 1, 4, 1, 2)", " naslib:[2,1,1,4,1,2] "):
        assert CELLS.format(CELLS.parse(text)) == WANTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(4, 0, 3, 1, 4, 3)", "numbers whose meaning differs .*naslib:"),
        ("4-0-3-1-4-3", "numbers whose meaning differs .*naslib:"),
        ("naslib:1,2,3", "expected six numbers from 0 to 4"),
        ("naslib:1,2,3,4,0,5", "expected six numbers from 0 to 4"),
        ("naslib:1,2,3,4,0,True", "expected six numbers from 0 to 4"),
        ("naslib:__import__('os')", "expected six numbers"),
        ("{'0_1': 'conv_3x3'}", "expected the six edges .* got 0_1"),
        ("{'0_1': 'conv_9x9'}", "expected an operation out of .* for edge '0_1', got 'conv_9x9'"),
        ("{'0_1': ['none']}", "expected an operation out of"),
        ("{'edge': 'none'}", "expected keys SOURCE_TARGET such as '0_1', got 'edge'"),
        ("{" * 900, "expected a dictionary"),
        ("{'a': " + "[" * 300 + "]" * 300 + "}", "expected a"),
        (repr({**EDGES, "0_4": "none"}), "expected the six edges"),
    ],
)
def test_what_is_not_certain_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"not a nasbench201 architecture.*{message}"):
        CELLS.parse(text)


def test_records_of_nasbench301() -> None:
    def words(cell: tuple[tuple[int, int], ...]) -> str:
        return "[" + ", ".join(f"('{NB301[o]}', {s})" for s, o in cell) + "]"

    text = f"Genotype(normal={words(RECORD[0])}, normal_concat=range(2, 6), reduce={words(RECORD[1])}, "
    assert DARTS.parse(repr(RECORD)) == DARTS.parse(text + "reduce_concat=range(2, 6))")
    assert DARTS.parse(repr([list(map(list, cell)) for cell in RECORD])) == DARTS.parse(repr(RECORD))


def test_records_of_nasbench301_there_and_back() -> None:
    rng = random.Random(0)
    for _ in range(50):
        arch = DARTS.sample(rng)
        genotype = DARTS.genotype(arch)
        record = tuple(
            tuple((source, NB301.index(operation)) for operation, source in cell)
            for cell in (genotype.normal, genotype.reduce)
        )
        assert DARTS.parse(repr(record)) == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("((0, 1), (1, 2))", "expected two cells of eight"),
        (repr(RECORD[0]), "expected two cells of eight"),
        (repr(((*RECORD[0][:7], (3, 7)), RECORD[1])), r"node 3 of the normal cell: .*got \(3, 7\)"),
        (repr((RECORD[0], ((2, 0), *RECORD[1][1:]))), r"node 0 of the reduction cell: .*source in 0\.\.1"),
        (repr((RECORD[0], ((0, 0), (0, 1), *RECORD[1][2:]))), "another source than 0"),
        ("(" * 900, "expected two cells"),
        ("[[1.5]]", "expected two cells"),
    ],
)
def test_damaged_records(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DARTS.parse(text)


def test_numbers_of_decisions_have_no_notation() -> None:
    assert CELLS.format(Architecture("nasbench201", (4, 0, 3, 1, 4, 3))).startswith("|avg_pool_3x3~0|")
