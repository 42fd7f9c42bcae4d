"""The actions of a run and the curve of its training, in a store."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from pynas._errors import UserError
from pynas.store import Action, Journal, RunConfig, Store

CONFIG = RunConfig("toy", "random", 0, ("s",))
ACTION = Action(0, 3, 17, "forbid", {"blocks": ["0:1"], "n": 0.1 + 0.2}, "Ada <b>", "2025-01-01T00:00:00Z")
STORED = Path(__file__).parent / "stored" / "searches.db"


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    actions = [replace(ACTION, number=i, trial=i) for i in range(3)]
    with Store(path) as store:
        run, other = store.start(CONFIG, {}), store.start(replace(CONFIG, seed=1), {})
        journal = Journal(store, run, write=True)
        for action in actions:
            journal.append(action)
        Journal(store, other, write=True).append(ACTION)
        for step, loss in ((10, 1.0), (20, 0.5), (10, 2.0)):
            journal.put_point(step, {"step": step, "loss": loss, "validation": None})
    with Store(path, read_only=True) as store:
        journal = Journal(store, run)
        assert journal.actions() == tuple(actions)
        assert [(point["step"], point["loss"]) for point in journal.points()] == [(10, 2.0), (20, 0.5)]
        assert len(Journal(store, other).actions()) == 1
    with Store(path) as store:
        journal = Journal(store, run, write=True)
        journal.forget_points(10)
        assert [point["step"] for point in journal.points()] == [10]


def test_a_store_of_before_has_no_actions_and_gets_them(tmp_path: Path) -> None:
    path = Path(shutil.copy(STORED, tmp_path))
    with Store(path, read_only=True) as store:
        run = store.run()
        journal = Journal(store, run)
        assert (journal.actions(), journal.points()) == ((), ())
    with Store(path) as store:
        trials = store.trials(run)
        Journal(store, run, write=True).append(ACTION)
    with Store(path) as store:
        assert Journal(store, run).actions() == (ACTION,)
        assert store.trials(run) == trials


@pytest.mark.parametrize(
    "change",
    [
        "fields = '{}'",
        "fields = '{\"blocks\":[]'",
        "fields = 3",
        "kind = 'allow'",
        "kind = 3",
        "who = 'Eve'",
        "trial = 4",
        "trial = -1",
        "trial = 'x'",
        "step = 1",
        "number = 1",
        "time = 'now'",
    ],
)
def test_a_changed_row_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as store:
        run = store.start(CONFIG, {})
        Journal(store, run, write=True).append(ACTION)
    with sqlite3.connect(path) as database:
        column = change.partition(" ")[0]
        fields = database.execute("SELECT fields FROM actions").fetchone()[0]
        assert "pynas_sum" in fields
        if change == "fields = '{}'":
            change = f"fields = '{fields.replace('0:1', '0:2')}'"
        database.execute(f"UPDATE actions SET {change}")
    with Store(path) as store, pytest.raises(UserError, match="the store is damaged") as caught:
        Journal(store, run).actions()
    assert f"run {run.id}, action 0" in str(caught.value)
    assert column


def test_a_changed_point_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as store:
        run = store.start(CONFIG, {})
        Journal(store, run, write=True).put_point(3, {"loss": 1.5})
    with sqlite3.connect(path) as database:
        database.execute("UPDATE curves SET point = replace(point, '1.5', '1.4')")
    with Store(path) as store, pytest.raises(UserError, match="curve of the training"):
        Journal(store, run).points()
