"""Files that an earlier state of pynas wrote are read as what they were, and its searches go on.

``python tests/test_stored_files.py`` writes those that are absent; what is there is never written anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from pynas._errors import UserError
from pynas.store import Store
from pynas.testing.fuzz._readers import READERS
from pynas.trial import Trial
from tests.damage import same
from tests.file_formats import FORMATS
from tests.stored.searches import FORMER_OPTIONS, SEARCHES, TRIALS, run

pytestmark = pytest.mark.slow

STORED = Path(__file__).parent / "stored"
OWN = (
    "weights",
    "checkpoint",
    "embedding",
    "latency-table",
    "unfinished-latency-table",
    "compact-table",
    "compact-table-of-nasbench101",
    "template",
    "store",
    "networks-trained-alone",
    "estimates-of-a-study",
)
"""Formats that pynas writes."""


@pytest.mark.parametrize("name", OWN)
def test_reads_as_one_written_now(name: str, tmp_path: Path) -> None:
    form = next(form for form in FORMATS if form.name == name)
    now = tmp_path / READERS[name].filename
    now.parent.mkdir(parents=True, exist_ok=True)
    form.write(now)
    copy = tmp_path / "copy"
    shutil.copytree(STORED / name, copy)
    assert same(form.read(copy / READERS[name].filename), form.read(now))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_goes_on(name: str, tmp_path: Path) -> None:
    store = shutil.copy(STORED / "searches.db", tmp_path)
    with Store(store) as opened:
        before = len(opened.runs())
    resumed = run(name, store, TRIALS + 6, resume=True)
    with Store(store) as opened:
        assert len(opened.runs()) == before, "it began anew"
    anew = run(name, None, TRIALS + 6, **FORMER_OPTIONS.get(name, {}))
    assert content(resumed.trials) == content(anew.trials)


def test_a_search_goes_on_by_the_options_that_it_began_with(tmp_path: Path) -> None:
    store = shutil.copy(STORED / "searches.db", tmp_path)
    options = FORMER_OPTIONS["layers"]["strategy_options"]
    resumed = run("layers", store, TRIALS + 2, resume=True)
    assert "procedure" not in resumed.run.config.config["strategy"]
    explicit = run("layers", store, TRIALS + 4, resume=True, strategy_options=options)
    assert explicit.run.id == resumed.run.id
    with pytest.raises(UserError, match="procedure"):
        run("layers", store, TRIALS + 4, resume=True, strategy_options={"procedure": "published"})
    # A search of today beside it: another run, found again as such.
    today = run("layers", store, 4)
    assert today.run.id != resumed.run.id
    again = run("layers", store, 6, resume=True)
    assert again.run.id == today.run.id
    assert content(again.trials) == content(run("layers", None, 6).trials)


def content(trials: Sequence[Trial]) -> list[object]:
    return [(t.number, t.architecture, t.evaluation.status, dict(t.evaluation.scores)) for t in trials]


def write() -> None:
    for form in FORMATS:
        path = STORED / form.name / READERS[form.name].filename
        if form.name in OWN and not path.exists():
            path.parent.mkdir(parents=True)
            form.write(path)
    if not (STORED / "searches.db").exists():
        for name in SEARCHES:
            run(name, STORED / "searches.db", TRIALS)


if __name__ == "__main__":
    write()
