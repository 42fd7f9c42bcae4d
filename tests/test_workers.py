"""Searches whose evaluations run in several processes, which die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run import SearchResult, search
from pynas.testing.strategies import ToySpace, evaluate
from pynas.trial import Evaluation, Status

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


def noted(architecture: Architecture) -> Evaluation:
    """The toy evaluation, slowly; says in a file which process it is."""
    Path(os.environ["PYNAS_TEST_FOLDER"], str(os.getpid())).touch()
    time.sleep(0.05)
    return evaluate(architecture)


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

        toy(evaluator=noted, store=sys.argv[1], on_trial=lambda trial: print(trial.number, flush=True))
    """)
    command = [sys.executable, "-c", code, str(tmp_path / "runs.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 12:
                child.kill()
                break
    workers = [int(path.name) for path in (tmp_path / "processes").iterdir()]
    assert len(workers) == 2
    assert child.pid not in workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    again = toy(store=tmp_path / "runs.db", resume=True)
    assert facts(again) == facts(toy())


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
