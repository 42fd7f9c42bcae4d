"""Evaluators of one's own: numbers, what they raise, and what a search says of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pynas
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.store import Store
from pynas.testing.strategies import ToySpace
from pynas.trial import Evaluation, Status

TOY = ToySpace(length=3, choices=4)


def inner(value: int) -> float:
    return 1 / value


def fragile(architecture: Architecture) -> float:
    return inner(architecture.decisions[0])


def search(evaluator: Any, objectives: Any = ("quality",), **more: Any) -> Any:
    return pynas.search(TOY, "random", list(objectives), evaluator=evaluator, budget=8, seed=1, **more)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_raised_is_kept_with_its_traceback(tmp_path: Path, workers: int) -> None:
    result = search(fragile, store=tmp_path / "runs.db", workers=workers)
    failed = [t for t in result.trials if t.evaluation.status is Status.FAILED]
    assert 0 < len(failed) < 8
    for trial in failed:
        assert trial.architecture.decisions[0] == 0
        assert trial.evaluation.message == "ZeroDivisionError: division by zero"
        lines = trial.evaluation.traceback.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert [line.split(", in ")[1] for line in lines if ", in " in line] == ["fragile", "inner"]
        assert lines[-1] == "ZeroDivisionError: division by zero"
    with Store(tmp_path / "runs.db", read_only=True) as store:
        assert store.trials(store.run()) == result.trials
    assert all(t.evaluation.traceback == "" for t in result.trials if t not in failed)


def test_tracebacks_are_bounded_and_printable() -> None:
    def deep(n: int) -> float:
        return deep(n + 1)

    def rude(architecture: Architecture) -> float:
        if architecture.decisions[0]:
            return deep(0)
        raise ValueError("\x1b[31m\ud800")

    for trial in search(rude).trials:
        text = trial.evaluation.traceback
        assert len(text) < 8100
        assert "\x1b" not in text
        assert text.startswith("Traceback")


def test_when_all_fail_the_result_names_the_first_reason() -> None:
    result = search(lambda architecture: 1 / 0)
    assert result.best is None
    assert result.failure == "all 8 trials failed; the first: ZeroDivisionError: division by zero"
    assert result.failure in repr(result)
    good = search(lambda architecture: 1.0)
    assert good.failure == ""


def test_numbers_by_name() -> None:
    result = search(lambda a: {"quality": a.decisions[0], "other": a.decisions[1]}, ("quality", "-other"))
    assert {"quality", "other", "-other"} <= result.best.evaluation.scores.keys()
    quality, other, _ = result.best.architecture.decisions
    assert result.best.evaluation.scores == {"quality": quality, "other": other, "-other": -other}


def closing(value: Any) -> Callable[[Architecture], float]:
    return lambda architecture: float(value)


class Configured:
    """Its configuration says what it is, whatever its code."""

    def __init__(self, epochs: int, log: Any = None) -> None:
        self.config = {"epochs": epochs}
        self.log = log

    def __call__(self, architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, {"quality": 1.0})


@pytest.mark.parametrize(
    ("first", "same", "other", "message"),
    [
        (closing(1), closing(1), closing(2), r"evaluator\.closure\.value: 2 instead of 1"),
        (Configured(3), Configured(3, log="a.txt"), Configured(4), r"evaluator\.epochs: 4 instead of 3"),
        (fragile, fragile, closing(1), r"evaluator\.function: .*closing.* instead of .*fragile"),
    ],
)
def test_the_evaluator_belongs_to_the_run(
    tmp_path: Path, first: Any, same: Any, other: Any, message: str
) -> None:
    store = tmp_path / "runs.db"
    search(first, store=store)
    search(same, store=store, resume=True)
    with pytest.raises(UserError, match=message):
        search(other, store=store, resume=True)


def test_objective_and_bounds_belong_to_the_run(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    search(Configured(1), store=store)
    with pytest.raises(UserError, match=r'objectives: \["other"\] instead of \["quality"\]'):
        search(Configured(1), ("other",), store=store, resume=True)
    with pytest.raises(UserError, match=r"constraints\.params: 99.* instead of null"):
        search(Configured(1), store=store, resume=True, constraints={"params": 99})


# ---- the result as a table -------------------------------------------------------------------------------


def test_a_result_is_short_to_look_at_and_a_table() -> None:
    result = search(fragile)
    lines = repr(result).splitlines()
    assert lines[0].startswith("SearchResult: 8 trials (")
    assert f"best: {TOY.format(result.best.architecture)}" in lines[1]
    assert max(map(len, lines)) <= 100
    frame = pytest.importorskip("pandas") and result.to_dataframe()
    assert list(frame.columns[:3]) == ["trial", "architecture", "status"]
    assert frame["trial"].tolist() == list(range(8))
    assert frame["architecture"].tolist() == [TOY.format(t.architecture) for t in result.trials]
    for value, trial in zip(frame["quality"], result.trials, strict=True):
        known = trial.evaluation.scores.get("quality", math.nan)
        assert value == known or (math.isnan(value) and math.isnan(known))


def test_csv_is_read_back(tmp_path: Path, run_pynas: Callable[..., Any]) -> None:
    result = search(fragile)
    path = result.to_csv(tmp_path / "trials.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [t.evaluation.status.value for t in result.trials]
    for row, trial in zip(rows, result.trials, strict=True):
        score = trial.evaluation.scores.get("quality")
        assert (row["quality"] == "") if score is None else float(row["quality"]) == score
        assert float(row["params"]) == TOY.params(trial.architecture)
    command = ("search", "--objective", "-params", "--strategy", "random", "--budget", 3)
    assert run_pynas(*command, "--csv", tmp_path / "cli.csv")[0] == 0
    assert len((tmp_path / "cli.csv").read_text().splitlines()) == 4
    code, _, err = run_pynas(*command, "--csv", tmp_path / "none" / "cli.csv")
    assert code == 2
    assert "--csv" in err
