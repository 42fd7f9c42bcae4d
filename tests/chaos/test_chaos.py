"""``python -m pynas.testing.chaos``: a short run, and that it finds what it is there to find."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pynas import strategies
from pynas.store import Store
from pynas.strategies import RandomSearch
from pynas.testing.chaos import _outcomes
from pynas.testing.chaos._campaign import judged
from pynas.testing.chaos._command import main
from pynas.testing.chaos._faults import FAULTS, _cut, _flushed
from pynas.testing.chaos._jobs import JOBS
from pynas.testing.chaos._process import End

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "pynas.testing.chaos"]


def chaos(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, results and what was said."""
    command = [*COMMAND, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def options(name: str, *values: str) -> list[str]:
    return [part for value in values for part in (f"--{name}", value)]


# ---- a short run -------------------------------------------------------------------------------------------


def test_every_kind_of_fault_leaves_a_search_as_it_is(tmp_path: Path) -> None:
    others = [name for name in FAULTS if name not in ("kill", "worker")]
    jobs = options("job", "search-local_search")
    code, (result,), err = chaos(
        *jobs, *options("fault", *others), "--kills", 12, "--copies", "--keep", tmp_path
    )
    assert (code, result["problems"]) == (0, []), err
    assert sum(result["faults"].values()) == 12
    assert result["faults"].keys() == set(others) - result["missing"].keys()
    assert result["runs"] >= 1
    assert result["compared"] == 60 * result["runs"]
    assert (result["lost"], result["doubled"], result["different"]) == (0, 0, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_killed_trainings_and_workers(tmp_path: Path) -> None:
    jobs = options("job", "supernet-uniform", "workers-evolution")
    faults = options("fault", "kill", "worker")
    code, results, err = chaos(*jobs, *faults, "--kills", 2, "--copies", "--seed", 1, "--keep", tmp_path)
    assert (code, [result["problems"] for result in results]) == (0, [[], []]), err
    assert [result["job"] for result in results] == ["supernet-uniform", "workers-evolution"]
    assert [sum(result["faults"].values()) for result in results] == [1, 1]
    assert all(result["resumed"] + result["faults"].get("worker", 0) > 0 for result in results)
    assert "no workers" in results[0]["missing"]["worker"]


def test_every_strategy_is_a_job() -> None:
    searched = {job.strategy for job in JOBS().values() if job.name.startswith("search-")}
    assert searched == set(strategies.names())
    strategies.REGISTRY.register("planted", RandomSearch)
    try:
        assert JOBS()["search-planted"].strategy == "planted"
    finally:
        del strategies.REGISTRY._objects["planted"]
    assert {job.workers for job in JOBS().values()} == {1, 2}


# ---- planted faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "job", "problem"),
    [
        ("store", "search-random", "reported as done, of which the store has"),
        ("report", "report", "r.html is n"),  # ... not whole, or neither the old nor the new one
        ("strategy", "search-random", "different: trial"),
    ],
)
def test_planted_faults_are_found(planted: str, job: str, problem: str, tmp_path: Path) -> None:
    load = HERE / f"planted_{planted}.py"
    arguments = ["--job", job, "--fault", "kill", "--kills", 6, "--load", load, "--keep", tmp_path]
    copies = [] if planted == "store" else ["--copies"]  # one of them as Python starts it
    code, (result,), _ = chaos(*arguments, *copies)
    assert code == 1
    (found,) = result["problems"]
    assert problem in found
    assert result["evidence"] == str(tmp_path / job)
    assert found in (tmp_path / job / "story.txt").read_text()
    assert (tmp_path / job / "left").is_dir()
    again = f"python -m pynas.testing.chaos --job {job} --kills 6 --seed 0 --fault kill --load {load}"
    assert result["again"] == " ".join([again, *copies])
    assert result["lost"] + result["different"] > 0


def test_a_difference_has_a_kind() -> None:
    expected = {"trial 0": "a", "trial 1": "b", "trial 2": "c"}
    assert not _outcomes.compare(dict(expected), expected)
    found = _outcomes.compare({"trial 0": "a", "trial 1": "x", "trial 1 again": "b"}, expected)
    assert (found.lost, found.doubled) == (["trial 2"], ["trial 1 again"])
    assert found.different == ["trial 1 is x, not b"]
    assert str(found) == "lost: trial 2; doubled: trial 1 again; different: trial 1 is x, not b"
    unfinished = _outcomes.compare({"trial 0": "a"}, expected, unfinished=True)
    assert not unfinished
    assert _outcomes.compare({"trial 0": "b"}, expected, unfinished=True)


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("<!doctype html>\n<p>half")
    with pytest.raises(ValueError, match=r"r\.html is not whole"):
        _outcomes.page(page)
    page.write_text("<!doctype html>\n<p>one</html>\n")
    first = _outcomes.page(page)
    assert _outcomes.page(page) == first
    page.write_text("<!doctype html>\n<p>other</html>\n")
    assert _outcomes.page(page) != first
    assert _outcomes.page(tmp_path / "absent") is None
    for name, read in (("w.safetensors", _outcomes.tensors), ("a.npz", _outcomes.arrays)):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(ValueError, match="is not whole"):
            read(tmp_path / name)
    assert _outcomes.arrays(tmp_path / "absent.npz") == {}
    (tmp_path / "t.json").write_text('{"operators": {')
    with pytest.raises(ValueError, match="is not whole"):
        _outcomes.times(tmp_path / "t.json")


CLEAR, TRACEBACK = (
    "pynas: runs.db: the disk is full\n",
    "Traceback (most recent call last):\n  x\nKeyError: 7\n",
)


@pytest.mark.parametrize(
    ("kinds", "end", "wrong"),
    [
        ([], End(0, "", ""), ""),
        ([], End(0, "", TRACEBACK), "exit code 0, but a traceback: KeyError: 7"),
        ([], End(None, "", ""), "it hangs"),
        ([], End(2, "", CLEAR), "it refuses to go on, exit code 2: pynas: runs.db: the disk is full"),
        ([], End(1, "", TRACEBACK), "it does not end in one clear line, exit code 1: KeyError: 7"),
        (["kill"], End(-9, "", ""), ""),
        (["kill"], End(-11, "", ""), "it does not end in one clear line, exit code -11: it says nothing"),
        (["kill"], End(2, "", CLEAR), "it refuses to go on, exit code 2: pynas: runs.db: the disk is full"),
        (["interrupt"], End(130, "", ""), ""),
        (["interrupt"], End(130, "", TRACEBACK), "exit code 130, but a traceback: KeyError: 7"),
        (["clock", "disk"], End(2, "", CLEAR), ""),
        (["clock"], End(2, "", CLEAR), "it refuses to go on, exit code 2: pynas: runs.db: the disk is full"),
        (["disk"], End(2, "", ""), "it does not end in one clear line, exit code 2: it says nothing"),
        (
            ["disk"],
            End(2, "", TRACEBACK + CLEAR),
            "it does not end in one clear line, exit code 2: " + CLEAR[:-1],
        ),
        (["disk"], End(1, "", TRACEBACK), "it does not end in one clear line, exit code 1: KeyError: 7"),
        (["memory"], End(-6, "", "terminate called"), ""),
        (["disk"], End(-6, "", "abort"), "it does not end in one clear line, exit code -6: abort"),
    ],
)
def test_how_a_process_may_end(kinds: list[str], end: End, wrong: str) -> None:
    assert judged(end, [FAULTS[kind] for kind in kinds]) == wrong


# ---- power cuts --------------------------------------------------------------------------------------------


def test_a_power_cut_takes_only_what_was_not_flushed(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    sizes = set()
    for seed in range(50):
        path.write_bytes(bytes(range(1, 201)))
        _cut(path, 120, random.Random(seed))
        left = path.read_bytes()
        kept = left.rstrip(b"\0")
        assert left[:120] == bytes(range(1, 121))
        assert kept == bytes(range(1, len(kept) + 1))
        assert 120 <= len(kept) < 200
        sizes.add(len(left) == 200)
    assert sizes == {True, False}


def test_what_sqlite_has_flushed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer, reader = sqlite3.connect(path), sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.commit()
    log = tmp_path / "a.db-wal"
    assert _flushed(log) == 0
    reader.execute("BEGIN").execute("SELECT * FROM t").fetchall()  # a checkpoint gets no further than here
    size = log.stat().st_size
    for number in range(5):
        writer.execute("INSERT INTO t VALUES (?)", ("x" * 3000 + str(number),))
        writer.commit()
    writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    assert _flushed(log) == size < log.stat().st_size
    (page,) = struct.unpack_from(">I", log.read_bytes(), 8)
    assert (size - 32) % (page + 24) == 0
    reader.close()
    writer.close()


def test_trials_are_read_without_tidying_up(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pynas\n"
        "from pynas.testing.strategies import ToySpace, evaluate\n"
        "die = lambda trial: trial.number == 4 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "pynas.search(ToySpace(), 'random', ['toy'], budget=9, evaluator=evaluate, store=sys.argv[1],"
        " on_trial=die)\n"
    )
    path = tmp_path / "runs.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    assert len(before) == 2
    found = _outcomes.trials(path)
    assert list(found) == [f"trial {number}" for number in range(5)]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with Store(path) as store:
        assert len(store.trials(store.run())) == 5
    assert _outcomes.trials(tmp_path / "absent.db") == {}


# ---- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--job", "searching"], "--job: expected one of search-bayesian"),
        (["--fault", "flood"], "--fault: expected one of kill, power"),
        (["--strategy", "evolutoin"], "--strategy: expected all or one of bayesian"),
        (["--strategy", "random", "--job", "report"], "none of the jobs report searches with it"),
        (["--load", "/absent/file.py"], "--load: no such file: /absent/file.py"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
