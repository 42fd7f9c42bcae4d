"""A steered search that is resumed, or repeated from its actions, is the same search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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


@pytest.mark.slow
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


@pytest.mark.long
def test_a_killed_search_with_a_supernet_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL at three moments; in ``benches/results/steering-kills.json`` there are twenty."""
    record = tmp_path / "kills.json"
    script = [sys.executable, "experiments/steering_kills.py", "--kills", "3", "--record", record]
    told = subprocess.run(script, cwd=ROOT, text=True, capture_output=True)
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(record.read_text())
    assert found["same_end"]
    assert found["same_replay"]
    assert found["kills"][0]["trials"] + found["kills"][0]["actions"] > 0
    assert found["kills"][1]["trials"] < found["search"]["trials"]
    assert found["left_for_the_last"] > 0, "nothing was left to be done after the last kill"


def test_twenty_kills_were_recorded() -> None:
    """The figures of docs/steering.md."""
    found = json.loads((ROOT / "benches" / "results" / "steering-kills.json").read_text())
    assert found["same_end"]
    assert found["same_replay"]
    assert len(found["kills"]) == 20
    kept = [sum(kill[name] for name in ("trials", "actions", "points")) for kill in found["kills"]]
    assert len(set(kept)) > 15, "the moments are spread over the search"
    assert max(kept) > 0.8 * sum(found["search"].values()) > 5 * min(kept)


def test_outcomes_that_differ_are_told_apart() -> None:
    one, other = steered(), steered(seed=4)
    follow(one, PLAN)
    follow(other, PLAN)
    assert not same(outcome(one), outcome(other))
    assert score(one.trials[0].architecture).scores == one.trials[0].evaluation.scores
