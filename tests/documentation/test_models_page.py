"""docs/models.md says what the records say, and these what the package promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benches" / "results"
MODELS, PEERS = RESULTS / "models.jsonl", RESULTS / "peers.jsonl"
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "experiments" / "models_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_made_of_the_records(page: ModuleType) -> None:
    written = PAGE.partition(page.MARK)[2].lstrip("\n")
    assert written == page.sections(MODELS, PEERS), "run python experiments/models.py"


def test_networks_are_measured_right(page: ModuleType) -> None:
    rows = [r for r in page.lines_of(MODELS) if r["source"] != "calls"]
    assert len(rows) >= 150
    assert len({r["family"] for r in rows}) >= 40
    assert {r["source"] for r in rows} == set(page.SOURCES)
    statuses = {o["status"] for r in rows for o in r["collected"]}
    assert statuses <= {"ok", "refused"}, "no wrong value, no raw error, every model as it was"
    assert sum(map(page.collected, rows)) >= 0.95 * len(rows)
    assert sum(map(page.whole, rows)) >= 0.95 * len(rows)


def test_libraries_are_compared(page: ModuleType) -> None:
    cases = {r["case"] for r in page.lines_of(PEERS)}
    for network in ("text", "cnn", "vit", "lstm"):
        assert {f"peers/{network}_moments", f"peers/{network}_norms"} <= cases
    timed = [r for r in page.lines_of(PEERS) if r["unit"] == "seconds"]
    slower = {n for r in timed for n, v in r["ratios"].items() if n != "plain" and v[1] > 1}
    said = PAGE.partition("pynas is behind in")[2]
    assert all(page.LIBRARIES[name] in said for name in slower), "where pynas is not ahead, the page says so"
