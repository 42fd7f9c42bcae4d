"""Stores whose rows somebody changed, whose pages are damaged, or that lie where nothing can be written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run import search
from pynas.store import RunConfig, Store
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation, Status, Trial
from tests.report.read_pages import Page

pytestmark = pytest.mark.slow

SPACE = spaces.get("nasbench201")
CONFIG = RunConfig(SPACE.name, "random", 3, ("zico",), {"flops": 1e8}, {"space": {}, "table": None})
NAME = "runs # 1?.db"
RunPynas = Callable[..., tuple[int, str, str]]


def make_trial(number: int) -> Trial:
    evaluation = Evaluation(Status.OK, {"zico": 1.5 * number}, {"flops": 3.0}, "", 0.25)
    return Trial(number, Architecture(SPACE.name, (number, 1, 2, 3, 4, 0)), evaluation)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two runs, the second of five trials and a state after the third."""
    path = tmp_path_factory.mktemp("whole") / "runs.db"
    with Store(path) as store:
        store.start(RunConfig(SPACE.name, "random", 0, ("zico",)), {})
        run = store.start(CONFIG, {"started": "monday", "versions": {"torch": "2"}})
        run = store.start(CONFIG, {"started": "tuesday"}, resume=True)
        for number in range(5):
            store.append(run, make_trial(number), {"n": [number]} if number == 2 else None)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "runs.db"))


def read(path: Path, **options: Any) -> Any:
    with Store(path, read_only=True) as store:
        run = store.run()
        return run, store.trials(run, **options), store.state(run)


def change(path: Path, *statements: str | tuple[str, Any]) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            text, values = (statement, ()) if isinstance(statement, str) else statement
            connection.execute(text, values)
    connection.close()


def loosen(path: Path) -> None:
    """Give all tables columns without types, keys and constraints, as a careless copy has."""
    with sqlite3.connect(path) as connection:
        for table in ("runs", "trials", "states", "pynas_schema"):
            connection.execute(f"CREATE TABLE other AS SELECT * FROM {table}")
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            connection.execute("PRAGMA legacy_alter_table = ON")
            connection.execute(f"DROP TABLE {table}")
            connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            connection.execute(f"INSERT INTO {table} SELECT * FROM other")
            connection.execute("DROP TABLE other")
    connection.close()


NO_JSON = ["", "{", "[1", "nonsense", "NaN", '{"a": 1e999}', "[" * 100_000, '{"a": 1, "a": 2}', "\x1b[31m"]
NO_OBJECT = [*NO_JSON, "3", "null", '"text"', "[]", "[1, 2]"]
NO_TEXT = [None, 3, 2.5, b"\xff\xfe"]
NO_INTEGER = [None, "three", 2.5, b"3"]


def evaluation(**changes: Any) -> str:
    record = make_trial(1).evaluation.to_dict() | changes
    return json.dumps({name: value for name, value in record.items() if value is not ...})


BAD_EVALUATIONS = [
    *NO_TEXT,
    *NO_OBJECT,
    "{}",
    *(evaluation(**{name: ...}) for name in ("status", "scores", "metrics", "message", "seconds")),
    *(evaluation(status=value) for value in ("done", "OK", None, 1, ["ok"], {})),
    *(evaluation(scores=value) for value in ([], None, 1, "zico", {"zico": "1"}, {"zico": True})),
    *(evaluation(scores=value) for value in ({"zico": [1]}, {"zico": 1.0, "snip": {}})),
    *(evaluation(scores=value) for value in ({}, {"snip": 1.0}, {"zico": None}, {"zico": 10**400})),
    *(evaluation(metrics=value) for value in ([], None, {"flops": "3"}, {"flops": {}}, {"flops": False})),
    *(evaluation(message=value) for value in (None, 3, ["text"])),
    *(evaluation(seconds=value) for value in (None, "1", -0.5, True, [])),
]
BAD_ARCHITECTURES = [
    *NO_TEXT,
    *NO_OBJECT,
    "{}",
    '{"space": "nasbench201"}',
    '{"decisions": [1, 1, 2, 3, 4, 0]}',
    '{"space": "darts_cnn", "decisions": [1, 1, 2, 3, 4, 0]}',
    '{"space": null, "decisions": [1, 1, 2, 3, 4, 0]}',
    '{"space": "nasbench201", "decisions": {"0": 1}}',
    '{"space": "nasbench201", "decisions": "112340"}',
    '{"space": "nasbench201", "decisions": [1, 1, 2, 3, 4, 0.0]}',
    '{"space": "nasbench201", "decisions": [1, 1, 2, 3, 4, true]}',
    '{"space": "nasbench201", "decisions": [1, 1, 2, 3, 4, "0"]}',
    '{"space": "nasbench201", "decisions": [1, 1, 2, 3, 4, null]}',
]
BAD_DECISIONS = [[], [1, 1, 2, 3, 4], [1, 1, 2, 3, 4, 0, 0], [1, 1, 2, 3, 4, -1], [1, 1, 2, 3, 4, 5]]
BAD_RUNS = {
    "id": NO_INTEGER,
    "key": [*NO_TEXT, "", "0" * 64],
    "space": [*NO_TEXT, "", "darts_cnn"],
    "strategy": [*NO_TEXT, "evolution"],
    "seed": [*NO_INTEGER, 4, -3],
    "objectives": [*NO_TEXT, *NO_JSON, "3", "{}", "[]", "[1]", '["snip"]', '["zico", null]', '"zico"'],
    "constraints": [*NO_TEXT, *NO_OBJECT, '{"flops": null}', '{"flops": "1"}', '{"flops": true}', "{}"],
    "config": [*NO_TEXT, *NO_OBJECT, "{}"],
    "provenance": [*NO_TEXT, *NO_OBJECT, '{"resumed": 3}', '{"resumed": {}}', '{"resumed": ["monday"]}'],
}
BAD_STATES = {"number": [*NO_INTEGER, 0, -1, 6, 2**40], "state": [*NO_TEXT, *NO_OBJECT]}


def each(table: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    return ((column, value) for column, values in table.items() for value in values)


def refused(call: Callable[[], object]) -> str | None:
    """What a user is told; None where it works."""
    try:
        call()
    except UserError as error:
        return str(error)
    return None


def go_on(path: Path) -> None:
    """What a resumed search does with a store."""
    with Store(path) as store:
        run = store.start(CONFIG, {}, resume=True)
        store.state(run)
        store.append(run, make_trial(len(store.trials(run))), {"n": 5})


def check_refused(path: Path, where: str, what: Callable[[Path], object] = read) -> str:
    with pytest.raises(UserError) as caught:
        what(path)
    message = str(caught.value)
    assert message.startswith(f"store {path}: {where}"), message
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 500
    return message


@pytest.fixture(scope="module")
def loose(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(shutil.copy(whole, tmp_path_factory.mktemp("loose") / "runs.db"))
    loosen(path)
    assert read(path) == read(whole)
    return path


def test_rows_that_were_changed(loose: Path, tmp_path: Path) -> None:
    """The store, the run and the trial are named, and what is wrong with them; nothing of it is returned."""
    changes = [("run", "runs", column, value) for column, value in each(BAD_RUNS)]
    changes += [("run 2, trial 1", "trials", "evaluation", value) for value in BAD_EVALUATIONS]
    changes += [("run 2, trial 1", "trials", "architecture", value) for value in BAD_ARCHITECTURES]
    changes += [("run 2, state", "states", column, value) for column, value in each(BAD_STATES)]
    path = tmp_path / "runs.db"
    raw = loose.read_bytes()
    for i, (where, table, column, value) in enumerate(changes):
        path.write_bytes(raw)
        row = {"runs": "id = 2", "trials": "run = 2 AND number = 1", "states": "run = 2"}[table]
        change(path, (f"UPDATE {table} SET {column} = ? WHERE {row}", (value,)))
        if table == "runs" and column == "id":
            with Store(path, read_only=True) as store, pytest.raises(UserError, match="number is no integer"):
                store.runs()
            continue
        assert "the store is damaged: restore a copy" in check_refused(path, where)
        if i % 5:
            continue
        with pytest.raises(UserError):
            go_on(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_states_that_no_strategy_had(tmp_path: Path, request: pytest.FixtureRequest, workers: int) -> None:
    """JSON as it should be, which the strategy cannot go on from."""
    if workers > 1:
        request.getfixturevalue("in_this_process")
    path = tmp_path / "runs.db"

    def go(resume: bool, budget: int = 6) -> object:
        return search(
            ToySpace(), "evolution", ["toy"], budget=budget, evaluator=evaluate, store=path, workers=workers,
            resume=resume,
        )  # fmt: skip

    go(False)
    with Store(path, read_only=True) as store:
        found = store.state(store.run())
    assert found is not None
    kept, bad = found[1], [{}, {"a": []}, {"strategy": {}}, {"strategy": [], "open": 3}]
    inner = kept if workers == 1 else kept["strategy"]
    for name in inner:
        for value in (None, [["text"]], -1):
            changed = {**inner, name: value}
            bad.append(changed if workers == 1 else {**kept, "strategy": changed})
    if workers > 1:
        bad += [{**kept, "open": value} for value in ([3], [[3, 1.0]], [[["a"], 1.0]], [[[99], 1.0]])]
    said = []
    for state in bad:
        change(path, ("UPDATE states SET state = ?", (json.dumps(state),)))
        said.append(refused(lambda: go(True, 8)))
        change(path, "DELETE FROM trials WHERE number > 5", "UPDATE states SET number = 6")
    assert None not in said[:4]
    assert {message.partition(":")[0] for message in said if message} == {f"store {path}"}


def test_one_damaged_run_leaves_the_others(path: Path) -> None:
    change(path, "UPDATE runs SET config = '{' WHERE id = 1")
    assert read(path)[0].id == 2
    with Store(path, read_only=True) as store:
        with pytest.raises(UserError, match="run 1: its config is no JSON"):
            store.run(1)
        with pytest.raises(UserError, match="run 1: its config is no JSON"):
            store.runs()


@pytest.mark.parametrize("decisions", BAD_DECISIONS, ids=str)
def test_architectures_that_a_known_space_does_not_have(
    path: Path, run_pynas: RunPynas, tmp_path: Path, decisions: list[int]
) -> None:
    text = Architecture(SPACE.name, tuple(decisions)).to_json()
    change(
        path, ("UPDATE trials SET architecture = ?, evaluation = ? WHERE number = 3", (text, evaluation()))
    )
    check_refused(path, "run 2, trial 3: arch: ", lambda path: read(path, check=SPACE.check))
    code, out, err = run_pynas("report", path, "--output", tmp_path / "page.html")
    assert (code, out) == (2, "")
    assert err.startswith(f"pynas: store {path}: run 2, trial 3: arch: ")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("DELETE FROM trials WHERE number = 0", "run 2, trial 0: the next one has the number 1"),
        ("DELETE FROM trials WHERE number = 2", "run 2, trial 2: the next one has the number 3"),
        ("UPDATE trials SET number = 7 WHERE number = 4", "run 2, trial 4: the next one has the number 7"),
        ("UPDATE trials SET number = -1 WHERE number = 4", "run 2, trial 0: the next one has the number -1"),
        ("UPDATE trials SET number = 'x' WHERE number = 4", "run 2, trial 4: its number is no integer: 'x'"),
        ("INSERT INTO trials SELECT * FROM trials", "run 2, trial 1: the next one has the number 0"),
        ("DELETE FROM trials WHERE number > 1", "run 2, state of the strategy: it is the state after 3"),
        ("INSERT INTO states SELECT * FROM states", "run 2, state of the strategy: there are several"),
        ("UPDATE pynas_schema SET version = 'x'", "says no version of its layout"),
        ("UPDATE pynas_schema SET version = 0", "says no version of its layout"),
        ("UPDATE pynas_schema SET version = NULL", "says no version of its layout"),
        ("DELETE FROM pynas_schema", "says no version of its layout"),
        ("DROP TABLE trials", "table trials has no run, number, architecture, evaluation"),
        ("DROP TABLE states", "table states has no run, number, state"),
        ("DROP TABLE runs", "table runs has no id, "),
        ("DROP TABLE pynas_schema", "not a store of pynas"),
        ("ALTER TABLE trials DROP COLUMN evaluation", "table trials has no evaluation"),
        ("ALTER TABLE runs RENAME COLUMN seed TO seeds", "table runs has no seed"),
        ("ALTER TABLE states RENAME TO state", "table states has no "),
    ],
)  # fmt: skip
def test_rows_and_tables_that_are_missing(loose: Path, tmp_path: Path, statement: str, where: str) -> None:
    path = Path(shutil.copy(loose, tmp_path / "runs.db"))
    change(path, statement)
    check_refused(path, where)


def test_a_space_that_cannot_be_made(tmp_path: Path, run_pynas: RunPynas) -> None:
    for number, options in enumerate([{"channels": "many"}, {"no_such": 1}, ["channels"], "text"]):
        path = tmp_path / f"{number}.db"
        with Store(path) as store:
            run = store.start(RunConfig(SPACE.name, "random", 0, ("zico",), {}, {"space": options}), {})
            store.append(run, make_trial(0))
        code, _, err = run_pynas("report", path, "--output", tmp_path / "page.html")
        assert code == 2, options
        assert err.startswith("pynas: run 1: nasbench201 cannot be made with "), err
        assert err.count("\n") == 1


def test_the_page_of_a_subset_and_of_odd_facts(tmp_path: Path, run_pynas: RunPynas) -> None:
    path = tmp_path / "runs.db"
    config = {"space": {"subset": "0f"}, "table": ["cifar10"], "": {"a": [None, {"b": 1.5}]}}
    with Store(path) as store:
        run = store.start(
            RunConfig(SPACE.name, "random", 0, ("zico",), {}, config), {"started": 3, "x": None}
        )
        store.append(run, Trial(0, make_trial(0).architecture, Evaluation(Status.OK, {"zico": 1.0})))
        store.append(run, make_trial(1))
    code, out, err = run_pynas("report", path, "--output", tmp_path / "page.html")
    assert (code, err) == (0, "")
    architectures = Page(tmp_path / "page.html").columns["architecture"]
    assert SPACE.format(make_trial(0).architecture) in architectures
    assert "2 trials" in out


def test_a_digit_that_changed(path: Path, tmp_path: Path) -> None:
    """Nothing but the sum says so; what a version without sums wrote is read as it is."""
    text = "SELECT {} FROM {} WHERE run = 2 ORDER BY number DESC LIMIT 1"
    cases = {
        ("trials", "evaluation"): ('"zico":6.0', '"zico":6.5', "trial 4: its evaluation"),
        ("trials", "architecture"): ("[4,", "[3,", "trial 4: its evaluation"),
        ("states", "state"): ("[2]", "[3]", "state of the strategy: its state"),
    }
    raw = path.read_bytes()
    for (table, column), (old, new, expected) in cases.items():
        path.write_bytes(raw)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (kept,) = connection.execute(text.format(column, table)).fetchone()
        assert old in kept
        changed = kept.replace(old, new)
        change(path, (f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (changed, kept)))
        check_refused(path, f"run 2, {expected} does not have the sum")
    path.write_bytes(raw)
    change(path, """UPDATE runs SET provenance = replace(provenance, 'monday', 'friday')""")
    check_refused(path, "run 2: its provenance does not have the sum")
    path.write_bytes(raw)
    whole = read(path)
    for table, column in (("runs", "provenance"), ("trials", "evaluation"), ("states", "state")):
        change(path, f"UPDATE {table} SET {column} = json_remove({column}, '$.pynas_sum')")
    assert read(path) == whole


def test_trials_that_could_not_be_read_again_are_not_written(path: Path) -> None:
    good = make_trial(5)
    bad = [
        Trial(5, Architecture("darts_cnn", good.architecture.decisions), good.evaluation),
        Trial(5, good.architecture, Evaluation(Status.OK, {"snip": 1.0})),
        Trial(5, good.architecture, Evaluation(Status.OK, {"zico": float("nan")})),
        Trial(-1, good.architecture, good.evaluation),
    ]
    with Store(path) as store:
        run = store.run()
        for trial in bad:
            with pytest.raises(ValueError, match="its "):
                store.append(run, trial)
        assert len(store.trials(run)) == 5
        store.append(run, good)
        assert len(store.trials(run)) == 6


def test_a_full_disk_under_a_damaged_page(path: Path) -> None:
    """Damage that shows only when something is written."""
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    for page in range(1, len(content) // size):
        spoilt = bytes(content[: page * size]) + os.urandom(size) + bytes(content[(page + 1) * size :])
        path.write_bytes(spoilt)
        with pytest.raises(UserError, match="damaged"):
            go_on(path)


def test_devices_and_pipes_are_no_stores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/zero"), tmp_path / ("x" * 300)):
        for read_only in (False, True):
            with pytest.raises(UserError, match=r"a device or a pipe|File name too long"):
                Store(path, read_only=read_only)
    with pytest.raises(UserError, match="zero byte"):
        Store("a\0b")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"does not exist|Not a directory"):
        Store(tmp_path / "file" / "runs.db")


# ---- where nothing can be written --------------------------------------------------------------------


@pytest.fixture
def folder(path: Path) -> Iterator[Path]:
    """A folder with the store, which the process that :func:`as_reader` starts may not write.

    It is not one of pytest's, which are for their owner alone.
    """
    with tempfile.TemporaryDirectory(prefix="pynas-") as name:
        Path(name).chmod(0o755)
        made = Path(name) / "kept"
        made.mkdir()
        shutil.copy(path, made / NAME)
        yield made
        made.chmod(0o755)


def as_reader(work: Callable[[], object]) -> str:
    """What ``work`` prints or is refused with, in a process that may read everything and write nothing."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others, which this process won't use
        child = os.fork()
    if not child:
        try:
            for stream in (1, 2):
                os.dup2(writer, stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                work()
            except UserError as error:
                print(f"refused: {error}")
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture(autouse=True, scope="module")
def imported(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is imported later, a user other than root may not be able to read."""
    from pynas import cli

    page = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pynas", "report", str(whole), "--output", str(page)])
        with pytest.raises(SystemExit):
            cli.main()


def forbid(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def reads(folder: Path) -> str:
    def work() -> None:
        with Store(folder / NAME, read_only=True) as store:
            print(len(store.trials(store.run())))

    return as_reader(work)


def test_reading_a_store_in_a_folder_that_cannot_be_written(folder: Path) -> None:
    forbid(folder)
    assert reads(folder) == "5\n"
    assert [file.name for file in folder.iterdir()] == [NAME]
    assert "may not be written" in as_reader(lambda: Store(folder / NAME))


def test_the_command_reads_a_store_that_cannot_be_written(run_pynas: RunPynas, folder: Path) -> None:
    forbid(folder)
    pages = folder.parent / "pages"
    pages.mkdir()
    pages.chmod(0o777)
    arguments = ("report", folder / NAME, "--output")
    said = as_reader(lambda: print(run_pynas(*arguments, pages / "page.html")[0]))
    assert said == f"report: {pages / 'page.html'} (run 2, 5 trials)\n0\n"
    assert (pages / "page.html").stat().st_uid != 0
    said = as_reader(lambda: print(run_pynas(*arguments, folder / "page.html")[2]))
    assert f"pynas: --output: the folder {folder} may not be written" in said


def test_reading_while_somebody_else_writes(folder: Path) -> None:
    with Store(folder / NAME) as store:
        run = store.run()
        store.append(run, make_trial(5))
        forbid(folder)
        assert reads(folder) == "6\n"
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        store.append(run, make_trial(6))
        assert len(store.trials(run)) == 7


def test_the_last_trials_of_a_killed_search_are_not_left_out(folder: Path) -> None:
    """They are in the write-ahead log; without its index, reading them takes a folder that can be written."""
    kept = folder.parent / "wal"
    with Store(folder / NAME) as store:
        store.append(store.run(), make_trial(5))
        shutil.copy(folder / f"{NAME}-wal", kept)
        before = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(before)
    shutil.copy(kept, folder / f"{NAME}-wal")
    forbid(folder)
    assert f"its last trials are in {NAME}-wal, and reading those writes into the folder" in reads(folder)
    folder.chmod(0o777)
    for file in folder.iterdir():
        file.chmod(0o666)
    assert reads(folder) == "6\n"


def test_a_reader_leaves_nothing_beside_a_store(path: Path) -> None:
    content = path.read_bytes()
    assert len(read(path)[1]) == 5
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]


def test_several_start_at_once_in_a_new_file(tmp_path: Path) -> None:
    count = 6
    barrier, errors = threading.Barrier(count), []

    def start(seed: int) -> None:
        try:
            barrier.wait()
            with Store(tmp_path / "runs.db") as store:
                run = store.start(RunConfig(SPACE.name, "random", seed, ("zico",)), {})
                store.append(run, make_trial(0))
        except BaseException as error:
            errors.append(error)

    for _ in range(5):
        threads = [threading.Thread(target=start, args=(seed,)) for seed in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with Store(tmp_path / "runs.db", read_only=True) as store:
            assert len(store.runs()) == count
        (tmp_path / "runs.db").unlink()
