"""Searches whose evaluations run in several processes, which die."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run import SearchResult, search
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation, Status

pytestmark = pytest.mark.slow

SPACE = ToySpace(length=6, choices=6)


@dataclass(frozen=True)
class Deadly:
    """The toy evaluation, in a time that depends on who asks; some architectures kill the process."""

    folder: Path
    deaths: int

    def __call__(self, architecture: Architecture) -> Evaluation:
        name = "".join(map(str, architecture.decisions))
        if sum(architecture.decisions) % 13 == 0:
            count = len(list(self.folder.glob(f"{name}-*")))
            if count < self.deaths:
                (self.folder / f"{name}-{count}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(int.from_bytes(os.urandom(1), "little") / 1e5)
        return evaluate(architecture)


def evaluate_with_config(architecture: Architecture) -> Evaluation:
    """The toy evaluation, in a run of :func:`noted`."""
    return evaluate(architecture)


def noted(architecture: Architecture) -> Evaluation:
    """The toy evaluation, slowly; says in a file which process it is."""
    Path(os.environ["PYNAS_TEST_FOLDER"], str(os.getpid())).touch()
    time.sleep(0.05)
    return evaluate(architecture)


# One run goes on with the other.
noted.config = evaluate_with_config.config = {"scores": "toy"}  # type: ignore[attr-defined]


def refused(architecture: Architecture) -> Evaluation:
    raise UserError("images: none of them can be read")


class Unreadable:
    """Can be written by pickle, but not read."""

    def __call__(self, architecture: Architecture) -> Evaluation:
        return evaluate(architecture)

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise RuntimeError("not here")


@dataclass(frozen=True)
class Starts:
    """The toy evaluation, in processes that come up only sometimes."""

    folder: Path
    how: str

    def __call__(self, architecture: Architecture) -> Evaluation:
        if self.how == "never again":
            self.count("evaluated")
            os._exit(3)
        return evaluate(architecture)

    def count(self, what: str) -> int:
        """How many processes have said this before."""
        count = 0
        while True:
            try:
                (self.folder / f"{what}-{count}").touch(exist_ok=False)
            except FileExistsError:
                count += 1
            else:
                return count

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        started = self.count("started")
        if self.how == "dies" and started < 3:
            if started:
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit(1)
        if self.how == "hangs" and started == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if self.how == "never again" and started > 1:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Endless:
    """Says which process it is, and never ends."""

    folder: Path

    def __call__(self, architecture: Architecture) -> Evaluation:
        (self.folder / str(os.getpid())).touch()
        while True:
            time.sleep(1)


def connection_of_this_process() -> Connection:
    return next(each for each in gc.get_objects() if isinstance(each, Connection) and not each.closed)


MISBEHAVIOURS = {
    "exit": "^SystemExit: leaving$",
    "interrupt": "^KeyboardInterrupt",
    "object": r"^scores\['toy'\]: expected a number, got function$",
    "exception": "^UnpicklableError: <function",
    "output": None,  # which nobody needs
    "descriptors": "died twice",
    "part of a message": r"died twice \(exit code -9\)$",
    "something else": "died twice",
    "a child that holds the pipe": r"died twice \(exit code -9\)$",
}


KINDS = (*MISBEHAVIOURS, "nothing", "nothing", "nothing")


def misbehaves(architecture: Architecture) -> Any:
    """The toy evaluation, or something else: each kind for one architecture."""
    how = KINDS[architecture.decisions[0]]
    if how == "exit":
        raise SystemExit("leaving")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "object":
        return Evaluation(Status.OK, {"toy": lambda: 1})  # type: ignore[dict-item]
    if how == "exception":
        raise UnpicklableError(lambda: 1)
    if how == "output":
        sys.stdout.close()
        with contextlib.suppress(OSError):
            os.close(1)
    if how == "descriptors":
        os.closerange(3, 4096)
    if how == "part of a message":
        os.write(connection_of_this_process().fileno(), struct.pack("!i", 1000) + b"some of it")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "something else":
        connection_of_this_process().send_bytes(b"not a pickle")
    if how == "a child that holds the pipe":
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(architecture)


class UnpicklableError(Exception):
    """Holds what pickle does not take."""


def toy(**changes: Any) -> SearchResult:
    arguments = {"objectives": ["toy"], "budget": 40, "evaluator": evaluate, "seed": 1, "workers": 2}
    return search(SPACE, **arguments | changes)


def facts(result: SearchResult) -> list[tuple[Any, ...]]:
    """What must not depend on when and where the trials ran."""
    return [
        (t.number, t.architecture, t.evaluation.status, repr(dict(t.evaluation.scores)))
        for t in result.trials
    ]


@pytest.mark.parametrize("strategy", strategies.names())
def test_resume_with_open_proposals_equals_one_run(
    strategy: str, in_this_process: None, tmp_path: Path
) -> None:
    whole = toy(strategy=strategy, budget=60, workers=3)
    for budget in (1, 2, 33, 34, 60):
        result = toy(strategy=strategy, budget=budget, workers=3, store=tmp_path / "runs.db", resume=True)
        assert facts(result) == facts(whole)[:budget]
    with pytest.raises(UserError, match=r"config\.workers: 2 instead of 3"):
        toy(strategy=strategy, budget=60, store=tmp_path / "runs.db", resume=True)


@pytest.mark.parametrize("strategy", ["random", "exhaustive"])
def test_what_learns_nothing_proposes_the_same(strategy: str, in_this_process: None) -> None:
    space = ToySpace()
    common = {"objectives": ["toy"], "evaluator": evaluate, "budget": 100}
    assert facts(search(space, strategy, **common, workers=5)) == facts(search(space, strategy, **common))


def test_a_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "deaths").mkdir()
    found = toy(evaluator=Deadly(tmp_path / "deaths", 1), store=tmp_path / "runs.db")
    assert len(list((tmp_path / "deaths").iterdir())) >= 1
    # The same whichever process was quicker, and the same as where none died.
    assert facts(found) == facts(toy())


def test_a_trial_that_kills_two_workers_has_failed(tmp_path: Path) -> None:
    seen: list[int] = []
    found = toy(
        evaluator=Deadly(tmp_path, 2), strategy="random", on_trial=lambda trial: seen.append(trial.number)
    )
    assert seen == list(range(40))
    killed = {t.number for t in found.trials if sum(t.architecture.decisions) % 13 == 0}
    assert killed
    for trial, (*_, status, scores) in zip(
        found.trials, facts(toy(workers=1, strategy="random")), strict=True
    ):
        if trial.number in killed:
            assert trial.evaluation.status is Status.FAILED
            assert trial.evaluation.message == "the process that evaluated it died twice (exit code -9)"
        else:
            assert (trial.evaluation.status, repr(dict(trial.evaluation.scores))) == (status, scores)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_search_leaves_no_process_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "processes").mkdir()
    monkeypatch.setenv("PYNAS_TEST_FOLDER", str(tmp_path / "processes"))
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_workers import noted, toy

        def on_trial(trial):
            print(trial.number, flush=True)

        toy(evaluator=noted, store=sys.argv[1], budget=1000, on_trial=on_trial)
    """)
    command = [sys.executable, "-c", code, str(tmp_path / "runs.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 12 and len(list((tmp_path / "processes").iterdir())) == 2:
                child.kill()
                break
    workers = [int(path.name) for path in (tmp_path / "processes").iterdir()]
    assert len(workers) == 2
    assert child.pid not in workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    again = toy(evaluator=evaluate_with_config, store=tmp_path / "runs.db", budget=80, resume=True)
    assert facts(again) == facts(toy(budget=len(again.trials)))


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_process_that_does_not_come_up_costs_nothing(how: str, tmp_path: Path) -> None:
    start = time.monotonic()
    found = toy(evaluator=Starts(tmp_path, how), strategy="random", budget=8)
    assert facts(found) == facts(toy(strategy="random", budget=8, workers=1))
    assert len(list(tmp_path.glob("started-*"))) >= (2 if how == "hangs" else 4)
    assert time.monotonic() - start < 60  # a process that hangs is not waited for


def test_processes_that_never_come_up_again_end_the_search_with_its_trials_kept(tmp_path: Path) -> None:
    (tmp_path / "starts").mkdir()
    with pytest.raises(UserError, match=r"processes in a row did not start \(exit code -9\); every trial up"):
        toy(evaluator=Starts(tmp_path / "starts", "never again"), store=tmp_path / "runs.db")
    # The two that came up died of an evaluation each; no more than a few others were tried.
    assert len(list((tmp_path / "starts").glob("evaluated-*"))) == 2
    assert len(list((tmp_path / "starts").glob("started-*"))) < 12


def test_whatever_an_evaluator_does_in_a_process_the_search_goes_on() -> None:
    space = ToySpace(length=1, choices=len(KINDS))
    found = search(space, "exhaustive", ["toy"], evaluator=misbehaves, workers=2)
    assert [trial.architecture.decisions[0] for trial in found.trials] == list(range(len(KINDS)))
    for trial, kind in zip(found.trials, KINDS, strict=True):
        message = MISBEHAVIOURS.get(kind)
        if message is None:
            wanted = evaluate(trial.architecture)
            assert trial.evaluation.status is wanted.status
            assert repr(trial.evaluation.scores) == repr(wanted.scores)
        else:
            assert trial.evaluation.status is Status.FAILED
            assert re.search(message, trial.evaluation.message), trial.evaluation.message


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_search_ends_while_they_evaluate(
    end: signal.Signals, tmp_path: Path
) -> None:
    code = textwrap.dedent(f"""
        import signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_workers import Endless, toy

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        toy(evaluator=Endless(Path(sys.argv[1])))
    """)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        child.send_signal(end)
        child.communicate(timeout=30)
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_errors_are_clear() -> None:
    with pytest.raises(UserError, match="workers: expected a positive number of processes, got 0"):
        toy(workers=0)
    with pytest.raises(UserError, match=r"the evaluator cannot be sent to other processes: .*lambda"):
        toy(evaluator=lambda architecture: evaluate(architecture))
    with pytest.raises(UserError, match="a process cannot read the evaluator: RuntimeError: not here"):
        toy(evaluator=Unreadable())
    with pytest.raises(UserError, match="images: none of them can be read"):
        toy(evaluator=refused)


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pynas.run import search\n"
        "from pynas.testing.strategies import ToySpace, evaluate\n"
        "search(ToySpace(), objectives=['toy'], evaluator=evaluate, workers=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "__name__ ==" in done.stderr.splitlines()[-1]
