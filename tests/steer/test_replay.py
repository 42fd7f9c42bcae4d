"""A steered search that is resumed, or repeated from its actions, is the same search."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pynas._errors import UserError
from pynas.steer import Refused, SteeredSearch, replay
from pynas.steer.setup import Setup, begin, start
from pynas.store import Store
from tests.damage import same
from tests.steer.steered import PLAN, SPACE, follow, outcome, score, steered

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("strategy", ["evolution", "local_search", "reinforce"])
def test_the_same_actions_give_the_same_trials(strategy: str) -> None:
    first = steered(strategy=strategy)
    follow(first)
    again = steered(strategy=strategy, script=first.actions)
    assert again.is_catching_up
    while again.advance():
        pass
    assert outcome(again) == outcome(first)


@pytest.mark.parametrize("moment", [1, 5, 6, 12, 13, 21, 26, 31, 34])
def test_a_search_left_at_any_moment_goes_on_as_it_was(moment: int, tmp_path: Path) -> None:
    whole = steered()
    follow(whole)
    store = tmp_path / "runs.db"
    with steered(store) as left:
        follow(left, stop=lambda: len(left.trials) >= moment)
    with steered(store, resume=True) as resumed:
        follow(resumed)
        assert outcome(resumed) == outcome(whole)


def test_left_while_a_trial_runs_and_actions_were_done_meanwhile(tmp_path: Path) -> None:
    def script(search: SteeredSearch, *, left: bool) -> None:
        search.act("resume")
        for _ in range(5):
            search.advance()
        unit = search.begin()
        assert unit is not None
        search.act("forbid", blocks=["0:0"])
        search.act("pause")
        if not left:
            search.finish(unit, unit.run())

    whole = steered()
    script(whole, left=False)
    store = tmp_path / "runs.db"
    with steered(store) as search:
        script(search, left=True)
    with steered(store, resume=True) as resumed:
        with pytest.raises(Refused, match="still repeating"):
            resumed.act("resume")
        assert resumed.waiting == "catching_up"
        while resumed.advance():
            pass
        assert outcome(resumed) == outcome(whole)
        assert resumed.waiting is None


def test_a_cancelled_search_stays_so(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with steered(store) as search:
        search.act("resume")
        for _ in range(5):
            search.advance()
        search.begin()
        search.act("forbid", blocks=["0:0"])
        search.act("cancel")
    with steered(store, resume=True) as resumed:
        while resumed.advance():
            pass
        assert (len(resumed.trials), resumed.status) == (5, "cancelled")
        assert outcome(resumed)["actions"] == outcome(search)["actions"]


def test_what_the_store_says_and_cannot_be_is_an_error(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with steered(store) as search:
        follow(search)
    import sqlite3

    with sqlite3.connect(store) as database:
        database.execute("DELETE FROM actions WHERE number >= 2")
    resumed = steered(store, resume=True)
    with pytest.raises(UserError, match="cannot be continued at trial"):
        follow(resumed, {})
    resumed.close()


def test_the_run_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with steered(store) as search:
        search.act("resume")
        search.advance()
    with pytest.raises(UserError, match="no run with this configuration"):
        steered(store, resume=True, seed=4)
    with pytest.raises(UserError, match="resume it"):
        steered(store)
    with (
        Store(store) as opened,
        pytest.raises(UserError, match="not begun by pynas steer"),
    ):
        replay(opened)


def test_a_setup_is_found_in_the_store_and_repeated(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    setup = Setup(evaluator="params,flops", strategy="random", seed=5, batch=8)
    with begin(SPACE, setup, store=store, budget=12) as search:
        start(search, setup)
        follow(search, {4: [("forbid", {"blocks": ["0:0"]})], 8: [("undo", {})]})
    found = replay(str(store))
    assert found.is_same
    assert (len(found.trials), len(found.actions), found.settings) == (12, 4, ())
    import sqlite3

    with sqlite3.connect(store) as database:
        database.execute("DELETE FROM actions WHERE number = 3")
    assert not replay(str(store)).is_same, "the undo is missing"


def test_a_store_without_steered_runs_says_so(tmp_path: Path) -> None:
    copy = Path(shutil.copy(ROOT / "tests" / "stored" / "searches.db", tmp_path))
    with pytest.raises(UserError, match="no run in it was steered"):
        replay(str(copy))


CHILD = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from pynas.spaces import NASBench201
from pynas.steer.setup import Setup, begin, start
from tests.steer.steered import follow
setup = Setup(epochs=1, limit=250, batch=32, seed=1)
plan = {
    3: [("forbid", {"blocks": ["0:0"]})],
    6: [("train", {"epochs": 2})],
    9: [("add", {"decisions": [1, 1, 1, 2, 1, 1]})],
    11: [("undo", {})],
}
space = NASBench201(channels=2, num_cells=1)
with begin(space, setup, store=Path(sys.argv[1]), budget=14, resume=Path(sys.argv[1]).exists()) as search:
    while search.is_catching_up:
        search.advance()
    start(search, setup)
    print("ready", flush=True)
    follow(search, plan)
    print("done", flush=True)
"""


@pytest.mark.slow
def test_a_killed_search_with_a_supernet_ends_the_same(tmp_path: Path, one_thread: None) -> None:
    """SIGKILL at several moments; the script ``experiments/steering_kills.py`` does it at twenty."""
    whole = tmp_path / "whole.db"
    subprocess.run([sys.executable, "-c", CHILD, whole], cwd=ROOT, check=True, capture_output=True)
    killed = tmp_path / "killed.db"
    for moment in (0.15, 0.7, 1.5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, killed], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(moment)
        child.kill()
        child.communicate()
    subprocess.run([sys.executable, "-c", CHILD, killed], cwd=ROOT, check=True, capture_output=True)
    assert contents(killed) == contents(whole)
    found = replay(str(killed))
    assert found.is_same


def contents(path: Path) -> object:
    from pynas.store import Journal

    with Store(path, read_only=True) as store:
        run = store.run()
        journal = Journal(store, run)
        trials = [
            (t.architecture, dict(t.evaluation.scores), t.evaluation.metrics["steps"])
            for t in store.trials(run)
        ]
        actions = [(a.trial, a.step, a.kind, dict(a.fields), a.who) for a in journal.actions()]
        return trials, actions, journal.points()


def test_outcomes_that_differ_are_told_apart() -> None:
    one, other = steered(), steered(seed=4)
    follow(one, PLAN)
    follow(other, PLAN)
    assert not same(outcome(one), outcome(other))
    assert score(one.trials[0].architecture).scores == one.trials[0].evaluation.scores
