from __future__ import annotations

import math
import sqlite3

import pytest

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.store import SCHEMA_VERSION, RunConfig, Store
from pynas.trial import Evaluation, Status, Trial

CONFIG = RunConfig(
    "toy", "random", 0, ("zico",), {"flops": 1e8}, {"evaluator": {"batch": 128}, "table": None}
)


def make_trial(number: int, score: float = 1.5, message: str = "") -> Trial:
    status = Status.OK if math.isfinite(score) else Status.FAILED
    evaluation = Evaluation(status, {"zico": score}, {"flops": 3.0}, message, 0.25)
    return Trial(number, Architecture("toy", (number, 2)), evaluation)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def test_round_trip(path):
    trials = [make_trial(0), make_trial(1, 0.1 + 0.2), make_trial(2, message='<b>"quotes" ü\n</b>')]
    with Store(path) as store:
        run = store.start(CONFIG, {"versions": {"pynas": "0"}})
        for trial in trials:
            store.append(run, trial, {"n": trial.number})
    with Store(f"sqlite:///{path}", read_only=True) as store:
        assert store.runs() == (run,)
        assert store.run() == store.run(1) == run
        assert store.run().config == CONFIG
        assert store.trials(run) == tuple(trials)
        assert store.state(run) == (3, {"n": 2})


def test_non_finite_scores_come_back_as_nan(path):
    with Store(path) as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0, math.inf))
        (trial,) = store.trials(run)
    assert math.isnan(trial.evaluation.scores["zico"])
    assert trial.evaluation.status is Status.FAILED


def test_runs_are_separate(path):
    other = RunConfig("toy", "random", 1, ("zico",), {}, {})
    with Store(path) as store:
        first, second = store.start(CONFIG, {}), store.start(other, {})
        store.append(first, make_trial(0))
        store.append(second, make_trial(0, 7.0))
        assert store.trials(first)[0] != store.trials(second)[0]
        assert [run.id for run in store.runs()] == [1, 2]
        with pytest.raises(UserError, match=r"no run 7; runs in it: 1, 2"):
            store.run(7)


def test_resume_finds_the_run_and_remembers_the_session(path):
    with Store(path) as store:
        run = store.start(CONFIG, {"started": "monday"}, resume=True)  # an empty store: a new run
    with Store(path) as store:
        again = store.start(CONFIG, {"started": "tuesday"}, resume=True)
    assert again.id == run.id
    assert again.provenance == {"started": "monday", "resumed": [{"started": "tuesday"}]}


def test_same_configuration_needs_resume(path):
    with Store(path) as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0))
        with pytest.raises(UserError, match=r"run 1 has this configuration already, with 1 trial: resume it"):
            store.start(CONFIG, {})


def test_resume_names_what_differs(path):
    other = RunConfig(
        "toy", "random", 3, ("zico",), {"flops": 2e8}, {"evaluator": {"batch": 64}, "table": None}
    )
    with Store(path) as store:
        store.start(CONFIG, {})
        with pytest.raises(UserError) as error:
            store.start(other, {}, resume=True)
    assert "config.evaluator.batch: 64 instead of 128" in str(error.value)
    assert "constraints.flops: 200000000.0 instead of 100000000.0" in str(error.value)
    assert "seed: 3 instead of 0" in str(error.value)
    assert "table" not in str(error.value)


def test_trial_and_state_are_one_transaction(path):
    with Store(path) as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0), {"n": 0})
        with pytest.raises(ValueError, match="JSON compliant"):
            store.append(run, make_trial(1), {"n": math.nan})
        with pytest.raises(UserError, match="another process is writing the same run"):
            store.append(run, make_trial(0), {"n": 9})
        assert len(store.trials(run)) == 1
        assert store.state(run) == (1, {"n": 0})


def test_newer_version_is_refused(path):
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE pynas_schema SET version = ?", (SCHEMA_VERSION + 4,))
    connection.close()
    with pytest.raises(UserError, match=rf"newer pynas \(layout {SCHEMA_VERSION + 4}; .*upgrade pynas"):
        Store(path)


def test_other_database_is_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(UserError, match="not a store of pynas"):
        Store(path)


@pytest.mark.parametrize(
    "content", [b"hello, this is a text file, not a database" * 40, b"SQLite format 3\0garbage"]
)
def test_other_file_is_refused_and_kept(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a store of pynas|damaged"):
        Store(path)
    assert path.read_bytes() == content


def test_damaged_store(path):
    with Store(path) as store:
        run = store.start(CONFIG, {})
        for number in range(200):
            store.append(run, make_trial(number, message="x" * 200))
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"), Store(path) as store:
        store.trials(store.run())


def test_paths(tmp_path):
    with pytest.raises(UserError, match=r"directory .* does not exist"):
        Store(tmp_path / "missing" / "runs.db")
    with pytest.raises(UserError, match="a directory"):
        Store(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        Store(tmp_path / "runs.db", read_only=True)
    assert not (tmp_path / "runs.db").exists()
    with pytest.raises(UserError, match="expected a path or a URL"):
        Store("://")
    with pytest.raises(UserError, match="driver is not installed"):
        Store("nosuchdatabase://host/name")


def test_empty_file_is_a_new_store_but_not_to_read(path):
    path.touch()
    with pytest.raises(UserError, match="not a store"):
        Store(path, read_only=True)
    with Store(path) as store:
        assert store.runs() == ()
        with pytest.raises(UserError, match="no run; runs in it: none"):
            store.run()


def test_in_memory():
    with Store("sqlite://") as store:
        run = store.start(CONFIG, {})
        store.append(run, make_trial(0))
        assert len(store.trials(run)) == 1


def test_readers_see_a_store_that_is_being_written(path):
    with Store(path) as writer, Store(path, read_only=True) as reader:
        run = writer.start(CONFIG, {})
        for number in range(3):
            writer.append(run, make_trial(number))
            assert len(reader.trials(reader.run())) == number + 1


def test_two_writers_of_different_runs(path):
    with Store(path) as a, Store(path) as b:
        runs = a.start(CONFIG, {}), b.start(RunConfig("toy", "random", 1, ("zico",)), {})
        for number in range(5):
            a.append(runs[0], make_trial(number))
            b.append(runs[1], make_trial(number))
        assert len(a.trials(runs[0])) == len(a.trials(runs[1])) == 5


def test_settings(path):
    with Store(path) as store:
        scalar = lambda name: store._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()  # noqa: E731
        assert scalar("journal_mode") == "wal"
        assert scalar("synchronous") == 1  # NORMAL


def test_disk_full_loses_nothing(path):
    state = {"numbers": list(range(300))}
    with Store(path) as store:
        run = store.start(CONFIG, {})
        pages = store._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        store._connection.rollback()
        store._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
        store._connection.rollback()

        def fill() -> None:
            for number in range(1000):
                store.append(run, make_trial(number, message="x" * 100), state)

        with pytest.raises(UserError, match="the disk is full; every trial up to here is kept"):
            fill()
        # In the same process, once there is space again: a connection keeps working after the error.
        kept = store.trials(run)
        assert 0 < len(kept) < 1000
        assert store.state(run) == (len(kept), state)
        store._connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        store._connection.rollback()
        store.append(run, make_trial(len(kept)), state)
    with Store(path) as store:
        assert len(store.trials(store.start(CONFIG, {}, resume=True))) == len(kept) + 1
