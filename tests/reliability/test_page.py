"""docs/reliability.md shows what its record says, and faults end its making with an error."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def reliability(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("reliability")
    for name in ("reliability", "records"):
        sys.modules.pop(name, None)


def test_the_page_is_what_the_record_says(reliability: ModuleType) -> None:
    assert reliability.page() == reliability.PAGE.read_text(encoding="utf-8"), (
        "run experiments/reliability.py --write"
    )
    record = json.loads(reliability.RECORD.read_text())
    assert record.keys() == reliability.PARTS.keys() == reliability.ROWS.keys()
    assert not any(map(reliability._faults, record.values())), "what was found was not mended"


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ({"faults": []}, False),
        ({"faults": ["one"]}, True),
        ({"faults": {"pynas": {"AVX2": 0}, "plain": {"AVX2": 4}}}, False),
        ({"faults": {"pynas": {"AVX2": 1}, "plain": {"AVX2": 0}}}, True),
        ({"faults": [], "lost": 1, "doubled": 0, "different": 0}, True),
    ],
)
def test_what_counts_as_a_fault(reliability: ModuleType, part: dict[str, object], wrong: bool) -> None:
    assert reliability._faults(part) == wrong
