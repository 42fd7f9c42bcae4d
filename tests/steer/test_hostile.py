"""What an analyst, a second page, a stranger or a kill can do at the worst moment."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from pynas.steer import Ended, Malformed, Refused, SteeredSearch, Steering
from pynas.steer._events import KEPT, Log
from pynas.steer._progress import weighted
from pynas.steer.setup import Setup, begin, start
from pynas.store import Journal, Store
from tests.steer.steered import SPACE, follow, outcome, score, steered

PROXIES = Setup(evaluator="params,flops", strategy="random", seed=5, batch=8)


def begun(trials: int, **options: Any) -> SteeredSearch:
    search = steered(**options)
    search.act("resume")
    for _ in range(trials):
        search.advance()
    return search


def repeated(search: SteeredSearch, **options: Any) -> SteeredSearch:
    again = steered(script=search.actions, **options)
    while True:
        again.do_due()
        if not again.is_catching_up and len(again.trials) >= len(search.trials):
            return again
        assert again.advance()


# ---- what is undone ----------------------------------------------------------------------------------


def test_undo_takes_back_a_budget_that_is_spent_as_far_as_it_can() -> None:
    search = begun(10)
    search.act("forbid", blocks=["0:0"])
    search.act("budget", trials=60)
    for _ in range(40):
        search.advance()
    assert len(search.trials) == 50
    told = search.preview("undo")
    assert told["text"].startswith("undo: budget")
    search.act("undo")
    assert search.state.settings.budget == 50, "what has begun is not taken back"
    search.act("undo")
    assert search.state.settings.allowed[0] == (0, 1, 2, 3, 4)
    search.act("redo")
    search.act("redo")
    assert (search.state.settings.budget, len(search.state.settings.allowed[0])) == (60, 4)
    assert outcome(repeated(search)) == outcome(search)


def test_an_undo_that_changes_nothing_makes_way_for_the_one_before() -> None:
    search = begun(10, budget=20)
    search.act("forbid", blocks=["0:0"])
    search.act("budget", trials=30)
    while search.advance():
        pass
    search.act("undo")
    assert search.state.settings.budget == 30
    search.act("undo")
    assert search.allowed_space.size == SPACE.size
    assert outcome(repeated(search, budget=20)) == outcome(search)


def test_an_undo_meant_for_another_action_is_refused() -> None:
    search = begun(3)
    one = search.act("forbid", blocks=["0:0"])
    other = search.act("forbid", blocks=["1:0"])
    with pytest.raises(Refused, match=rf"action {one.number} is not the last one any more: forbid none on"):
        search.act("undo", of=one.number)
    search.act("undo", of=other.number)
    with pytest.raises(Refused, match="not the last one"):
        search.act("redo", of=one.number)
    search.act("redo", of=other.number)
    for wrong in ("1", True, -1, 1.0, None):
        with pytest.raises(Malformed, match="of: expected the number"):
            search.act("undo", of=wrong)


# ---- what is repeated --------------------------------------------------------------------------------


def test_a_strategy_that_had_nothing_left_goes_on_as_its_replay() -> None:
    """It was asked in vain once more than in the replay, which is told so by the stored action."""
    search = begun(4, strategy="evolution", budget=400)
    for name in ("random", "evolution", "local_search"):
        search.act(
            "strategy", name=name, **({} if name != "evolution" else {"options": {"population_size": 5}})
        )
        search.act("fix", candidates=[[1, 2, 3, 4, 0, 1], [1, 2, 3, 4, 1, 0]])
        while search.advance():
            pass
        assert search.state.exhausted
        search.act("undo")
        search.act("redo")  # the same settings as when nothing was left
        search.advance()
        search.act("undo")
        for _ in range(20):
            search.advance()
    assert outcome(repeated(search, strategy="evolution", budget=400)) == outcome(search)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_search_killed_while_it_is_begun_is_begun_by_the_next(kept: int, tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with begin(SPACE, PROXIES, store=store, budget=4) as search:
        start(search, PROXIES)
    with sqlite3.connect(store) as database:
        database.execute(f"DELETE FROM actions WHERE number >= {kept}")
    with begin(SPACE, PROXIES, store=store, budget=4, resume=True) as search:
        start(search, PROXIES)
        assert search.status == "running"
        assert [action.kind for action in search.actions] == ["budget", "resume"]
        while search.advance():
            pass
        search.act("pause")
    with begin(SPACE, PROXIES, store=store, budget=4, resume=True) as search:
        start(search, PROXIES)
        while search.advance():
            pass
        start(search, PROXIES)
        assert search.status == "paused", "what was begun is left as the analyst left it"


SUPERNET = Setup(epochs=2, limit=250, batch=32, seed=1)


@pytest.mark.slow
def test_nothing_is_done_between_steps_that_a_checkpoint_holds(tmp_path: Path, one_thread: None) -> None:
    store = tmp_path / "runs.db"
    with begin(SPACE, SUPERNET, store=store, budget=3) as search:
        start(search, SUPERNET)
        assert search.training is not None
        for _ in range(2 * search.training.per_epoch - 1):
            search.advance()
    with begin(SPACE, SUPERNET, store=store, budget=3, resume=True) as search:
        start(search, SUPERNET)
        training = search.training
        assert training is not None
        held = training._kept[1]
        assert held >= training.per_epoch
        while search.steps < held:
            assert search.waiting == "catching_up"
            with pytest.raises(Refused, match="still repeating"):
                search.act("train_stop")
            search.advance()
        assert not search.is_catching_up
        assert training.at == held
        search.act("forbid", blocks=["0:3", "1:3"])
        search.act("train_stop")
        follow(search, {})
        assert len(search.trials) == 3
        again = begin(SPACE, SUPERNET, script=search.actions)
        while len(again.trials) < 3:
            again.advance()
        assert [t.evaluation.scores for t in again.trials] == [t.evaluation.scores for t in search.trials]


@pytest.mark.slow
def test_weights_of_another_step_are_not_given_away(tmp_path: Path, one_thread: None) -> None:
    from pynas.steer._export import export

    def weights(search: SteeredSearch) -> Any:
        return export(
            SPACE, search.trials[0], "state_dict", training=search.training, steps=search.steps
        ).weights

    store = tmp_path / "runs.db"
    with begin(SPACE, SUPERNET, store=store, budget=3) as search:
        start(search, SUPERNET)
        while not search.trials:
            search.advance()
        assert weights(search) == "shared"
        search.act("train", epochs=1)
        assert search.training is not None
        for _ in range(search.training.per_epoch - 1):
            search.advance()
        unit = search.begin()
        assert unit is not None
        result = unit.run()
        search.act("cancel")
        search.finish(unit, result)
        with pytest.raises(Refused, match="cancelled during a step of training"):
            weights(search)
    with begin(SPACE, SUPERNET, store=store, budget=3, resume=True) as search:
        while search.advance():
            pass
        assert search.status == "cancelled"
        with pytest.raises(Refused, match="the shared weights are those of step"):
            weights(search)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_a_search_is_closed_while_a_step_of_training_runs(tmp_path: Path, one_thread: None) -> None:
    store = tmp_path / "runs.db"

    def make() -> SteeredSearch:
        search = begin(SPACE, SUPERNET, store=store, budget=3)
        training = search.training
        assert training is not None
        forward = training.model.forward

        def slow(*arguments: Any) -> Any:
            time.sleep(0.3)
            return forward(*arguments)

        training.model.forward = slow  # type: ignore[method-assign]
        return search

    steering = Steering(make, lambda search: start(search, SUPERNET), points=20)
    time.sleep(0.4)
    steering.close()
    assert not steering._owner.is_alive()
    with begin(SPACE, SUPERNET, store=store, budget=3, resume=True) as search:  # nobody holds it
        assert search.run.id == 1
    time.sleep(0.4)


# ---- numbers -----------------------------------------------------------------------------------------


def test_weights_of_any_size_leave_the_search_whole() -> None:
    search = begun(8, objectives=["s", "-params"])
    with pytest.raises(Malformed, match="at most 1e\\+100"):
        search.act("weights", weights={"s": 1e308, "-params": 1e308})
    search.act("weights", weights={"s": 1e100, "-params": -1e100})
    for _ in range(8):
        assert search.advance()
    assert weighted({"a": 1e300, "b": 1e300}, {"a": 1e100, "b": -1e100}) != 0
    assert weighted({"a": 1.5e308, "b": 1.5e308}, {"a": 1.0, "b": 1.0}) == float("inf")


# ---- memory and slow readers -------------------------------------------------------------------------


def test_what_is_kept_for_slow_pages_is_bounded() -> None:
    log = Log()
    for number in range(3 * KEPT):
        kind = ("state", "trial", "blocks")[number % 3]
        log.publish(kind, lambda revision: {"at": revision, "filler": "x" * 100})
    assert log.since(3 * KEPT) == []
    events = log.since(2 * KEPT)
    assert events is not None
    assert [event.revision for event in events if event.kind != "trial"] == [3 * KEPT - 2, 3 * KEPT]
    trials = [event.revision for event in events if event.kind == "trial"]
    assert trials == [r for r in range(2 * KEPT + 1, 3 * KEPT + 1) if r % 3 == 2]
    assert log.since(2 * KEPT - 1) is None, "so old ones are not kept"
    assert sum(len(event.data) for event in log._events) < 200 * KEPT / 2


def test_a_state_that_cannot_be_told_is_a_fault_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Steering(steered, points=20) as steering:
        steering.state()

        def broken(search: SteeredSearch, settings: object) -> tuple[str | None, bool]:
            raise ZeroDivisionError("of a size")

        monkeypatch.setattr("pynas.steer._documents.remaining", broken)
        since = steering.revision
        steering.act("resume")
        end = time.monotonic() + 20
        while not (found := [e for e in steering.events(since) or () if e.kind == "state"]):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert '"status":"failed"' in found[-1].data
        assert "of a size" in found[-1].data
        with pytest.raises(Refused, match="has failed"):
            steering.act("pause")


def test_an_export_that_waits_when_the_search_is_closed_ends() -> None:
    def slow(arch: Any) -> Any:
        time.sleep(0.5)
        return score(arch)

    made = Steering(lambda: SteeredSearch(SPACE, slow, objectives=["s"], budget=3), points=20)
    made.act("resume")
    time.sleep(0.1)
    made.close()
    with pytest.raises(Ended):
        made.compute(lambda: 1)


def test_runs_are_listed_without_reading_all_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs.db"
    for seed in (3, 4):
        with steered(store, seed=seed) as search:
            search.act("resume")
            for _ in range(5 + seed):
                search.advance()
    with steered(store, seed=5) as search:
        reads: list[int] = []
        original = Store.trials

        def noted(self: Store, run: Any, **options: Any) -> Any:
            reads.append(run.id)
            return original(self, run, **options)

        monkeypatch.setattr(Store, "trials", noted)
        assert [(f["trials"], f["actions"]) for f, _, _ in search.runs()] == [(8, 2), (9, 2), (0, 1)]
        assert reads == []
        (_, trials, steps) = search.runs("2")[1]
        assert (len(trials), len(steps), reads) == (9, 2, [2])
        assert search.store is not None
        assert Journal(search.store, search.run).count() == 1
