"""Whatever an evaluator returns, raises or does, a search goes on, and its store gives back what it held."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware import HardwareModel
from pynas.run import SearchResult, search
from pynas.store import Store
from pynas.tables import Table
from pynas.testing.strategies import ToySpace
from pynas.trial import Evaluation, Evaluator, Status, Trial

SPACE = ToySpace(length=3, choices=4)
BUDGET = 4
OK = Status.OK


def scored(**more: Any) -> Evaluation:
    return Evaluation(OK, {"acc": 1.0}, **more)


class Judge:
    """What ``give`` returns or raises from the second trial on."""

    config = {"judge": "one for all stores"}  # noqa: RUF012

    def __init__(self, give: Callable[[], Any]) -> None:
        self.give = give
        self.calls = 0

    def __call__(self, architecture: Architecture) -> Any:
        self.calls += 1
        return scored() if self.calls == 1 else self.give()


def found(give: Callable[[], Any], path: Path, objectives: tuple[str, ...] = ("acc",)) -> Evaluation:
    """The second trial of a search, the same in memory and after it was resumed from its store."""
    common: dict[str, Any] = {"strategy": "random", "objectives": objectives, "store": path / "runs.db"}
    result = search(SPACE, **common, evaluator=Judge(give), budget=BUDGET)
    assert len(result.trials) == BUDGET
    again = search(SPACE, **common, evaluator=Judge(give), budget=BUDGET + 1, resume=True)
    assert len(again.trials) == BUDGET + 1
    assert told(again.trials[:BUDGET]) == told(result.trials)
    with Store(path / "runs.db", read_only=True) as store:
        assert told(store.trials(store.run())[:BUDGET]) == told(result.trials)
    evaluation = result.trials[1].evaluation
    for value in (*evaluation.scores.values(), *evaluation.metrics.values(), evaluation.seconds):
        assert type(value) is float
    assert type(evaluation.message) is str
    assert type(evaluation.status) is Status
    return evaluation


def told(trials: tuple[Trial, ...]) -> list[str]:
    """All that trials say, NaN and the sign of zero included; the order of names says nothing."""
    return [
        repr([t.number, t.architecture, e.status, e.message, e.seconds, sorted(e.scores.items())])
        + repr(sorted(e.metrics.items()))
        for t in trials
        for e in [t.evaluation]
    ]


def named(value: Any) -> str:
    """An id that is the same in every process."""
    return re.sub(r" at 0x\w+", "", repr(value))


def torch_scalar(value: float, shape: tuple[int, ...] = ()) -> Any:
    import torch

    return torch.full(shape, value, requires_grad=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(2.5), 2.5),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),
        (True, 1.0),
        (3, 3.0),
        (2**53 + 1, float(2**53)),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (Fraction(1, 4), 0.25),
        (Decimal("0.5"), 0.5),
        (np.array(1.5), 1.5),
        (np.array([[2]]), 2.0),
        (np.longdouble(1.25), 1.25),
        (lambda: torch_scalar(0.5), 0.5),
        (lambda: torch_scalar(0.25, (1, 1)), 0.25),
    ],
    ids=named,
)
def test_numbers_of_every_kind_are_numbers(value: Any, expected: float, tmp_path: Path) -> None:
    number = value() if callable(value) else value
    evaluation = found(lambda: Evaluation(OK, {"acc": number}, {"m": number}, seconds=number), tmp_path)
    assert evaluation.status is OK
    for got in (evaluation.scores["acc"], evaluation.metrics["m"], evaluation.seconds):
        assert (got, math.copysign(1, got)) == (expected, math.copysign(1, expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0.5", "expected a number, got the text '0.5'"),
        (b"1", "expected a number, got bytes"),
        (None, "expected a number, got None"),
        (1 + 2j, "expected a number, got complex"),
        (np.complex64(1), "expected a number, got complex64"),
        (10**400, "expected a number, got an integer of 1329 bits, too large for a float"),
        ([1.0], "expected a number, got list"),
        (np.array([1.0, 2.0]), r"expected a number, got ndarray of shape \[2\]"),
        (np.array([]), r"expected a number, got ndarray of shape \[0\]"),
        (np.timedelta64(5, "ns"), "expected a number, got timedelta64"),
        (np.str_("x"), "expected a number, got the text 'x'"),
        (object(), "expected a number, got object"),
        (lambda: torch_scalar(1.0, (2,)), r"expected a number, got Tensor of shape \[2\]"),
    ],
    ids=named,
)
def test_what_is_no_number_fails_the_trial_and_is_named(value: Any, told: str, tmp_path: Path) -> None:
    number = value() if callable(value) else value
    evaluation = found(lambda: Evaluation(OK, {"acc": number}, {"other": 2}), tmp_path)
    assert evaluation.status is Status.FAILED
    assert_matches(rf"^scores\['acc'\]: {told}", evaluation.message)
    assert evaluation.metrics["other"] == 2.0  # what could be read is kept
    folder = tmp_path / "metric"
    folder.mkdir()
    evaluation = found(lambda: Evaluation(OK, {"acc": 1}, {"m": number}, seconds=number), folder)
    assert evaluation.status is Status.FAILED
    assert_matches(rf"^metrics\['m'\]: {told}.*; seconds: {told}", evaluation.message)
    assert evaluation.scores == {"acc": 1.0}
    assert 0 <= evaluation.seconds < 60


def assert_matches(pattern: str, text: str) -> None:
    import re

    assert re.search(pattern, text), text


class Breaks(Mapping[str, float]):
    """A mapping that cannot be read."""

    def __getitem__(self, name: str) -> float:
        return 1.0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no names")


class WordlessError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("give", "status", "message"),
    [
        (lambda: scored(metrics={"m": math.nan}), OK, ""),
        (lambda: scored(metrics={"m": -math.inf}), OK, ""),
        (lambda: scored(metrics=None), OK, ""),
        (lambda: Evaluation("ok", {"acc": 1}), OK, ""),  # type: ignore[arg-type]
        (lambda: Evaluation(OK, {np.str_("acc"): 1}), OK, ""),
        (
            lambda: Evaluation("fine", {"acc": 1}),
            Status.FAILED,
            "status: expected ok, failed, infeasible, got",
        ),  # type: ignore[arg-type]
        (lambda: Evaluation(None, {"acc": 1}), Status.FAILED, "status: .* got None"),  # type: ignore[arg-type]
        (lambda: Evaluation(OK, {"acc": math.inf}), Status.FAILED, "acc is not finite: inf"),
        (lambda: Evaluation(OK, {"acc": math.nan}), Status.FAILED, "acc is not finite: nan"),
        (lambda: Evaluation(OK, {}), Status.FAILED, "objective 'acc': the evaluator does not give it"),
        (lambda: Evaluation(OK, {3: 1.0}), Status.FAILED, "scores: expected names that are text, got 3"),  # type: ignore[dict-item]
        (lambda: scored(metrics={"a\udcff": 1}), Status.FAILED, "metrics: the name .* cannot be shown"),
        (lambda: scored(metrics=[1, 2]), Status.FAILED, "metrics: expected numbers by name, got list"),
        (lambda: scored(metrics=Breaks()), Status.FAILED, "metrics: cannot be read: RuntimeError: no names"),
        (lambda: scored(seconds=math.inf), Status.FAILED, "seconds: expected a finite number, got inf"),
        (lambda: scored(seconds=math.nan), Status.FAILED, "seconds: expected a finite number, got nan"),
        (lambda: scored(message=404), Status.FAILED, "message: expected text, got 404"),
        (lambda: scored(message=None), OK, ""),
        (lambda: scored(message=ValueError("so")), OK, "^ValueError: so$"),
        (lambda: Evaluation(Status.FAILED, message="x\udcff\0\ta\nb"), Status.FAILED, r"x\\udcff\\x00 +a\nb"),
        (lambda: None, Status.FAILED, "expected an Evaluation, a number or numbers by name, got None"),
        (lambda: True, Status.FAILED, "a number or numbers by name, got True"),
        (lambda: "0.5", Status.FAILED, "a number or numbers by name, got the text '0.5'"),
        (lambda: (1.0, 2.0), Status.FAILED, "a number or numbers by name, got tuple"),
        (lambda: np.ones(3), Status.FAILED, r"a number or numbers by name, got ndarray of shape \[3\]"),
    ],
)
def test_what_comes_back_from_an_evaluator(
    give: Callable[[], Any], status: Status, message: str, tmp_path: Path
) -> None:
    evaluation = found(give, tmp_path)
    assert evaluation.status is status
    assert_matches(message, evaluation.message)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), {"acc": 0.5}, {"acc": np.array(0.5)}], ids=repr)
def test_numbers_alone_are_the_scores(value: Any, tmp_path: Path) -> None:
    evaluation = found(lambda: value, tmp_path)
    assert (evaluation.status, evaluation.scores) == (OK, {"acc": 0.5})
    assert evaluation.seconds > 0


def test_a_number_alone_says_nothing_where_several_scores_are_wanted() -> None:
    def one(architecture: Architecture) -> float:
        return float(sum(architecture.decisions))

    cost = search(SPACE, "random", ["-acc", "-params"], evaluator=one, budget=3)  # type: ignore[arg-type]
    assert [t.evaluation.scores["-acc"] for t in cost.trials] == [
        -float(sum(t.architecture.decisions)) for t in cost.trials
    ]
    two = search(SPACE, "random", ["acc", "top5"], evaluator=one, budget=3)  # type: ignore[arg-type]
    assert {t.evaluation.message for t in two.trials} == {
        "the evaluator: a single number does not say which score it is of acc, top5"
    }


class OfRust(BaseException):
    """What extension modules raise where their own code panics."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WordlessError(), r"^WordlessError, whose text cannot be had \(RuntimeError\)$"),
        (SystemExit(3), "^SystemExit: 3$"),
        (GeneratorExit(), "^GeneratorExit"),
        (StopIteration(), "^StopIteration"),
        (MemoryError(), "^MemoryError"),
        (RecursionError("deep"), "^RecursionError: deep$"),
        (OfRust("panicked"), "^OfRust: panicked$"),
        (UserError("later"), "^UserError: later$"),
        (ValueError("\udcff"), r"^ValueError: \\udcff$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_fails_the_trial(error: BaseException, message: str, tmp_path: Path) -> None:
    def give() -> Any:
        raise error

    evaluation = found(give, tmp_path)
    assert evaluation.status is Status.FAILED
    assert_matches(message, evaluation.message)


def test_ctrl_c_ends_a_search_and_keeps_its_trials(tmp_path: Path) -> None:
    def give() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, "random", ["acc"], evaluator=Judge(give), store=tmp_path / "runs.db")
    with Store(tmp_path / "runs.db", read_only=True) as store:
        assert len(store.trials(store.run())) == 1


@pytest.mark.parametrize(
    ("at_fidelity", "message"),
    [
        (lambda share: None, r"^at_fidelity\(0.111\): expected an evaluator, got None$"),
        (lambda share: 1 / 0, "^ZeroDivisionError"),
        (lambda share: lambda architecture: None, "expected an Evaluation, a number"),
        (lambda share: lambda architecture: "x", "got the text 'x'"),
    ],
)
def test_a_cheaper_evaluator_that_is_none(at_fidelity: Any, message: str) -> None:
    class Cheaper:
        def __call__(self, architecture: Architecture) -> Evaluation:
            return scored()

    evaluator = Cheaper()
    evaluator.at_fidelity = at_fidelity  # type: ignore[attr-defined]
    result = search(SPACE, "successive_halving", ["acc"], evaluator=evaluator, budget=5)
    for trial in result.trials:
        assert trial.evaluation.status is Status.FAILED
        assert_matches(message, trial.evaluation.message)
        assert trial.evaluation.metrics["fidelity"] == pytest.approx(1 / 9)


@pytest.mark.parametrize("metrics", [{"fidelity": math.nan}, {"fidelity": -math.inf}, {"flops": "x"}])
def test_metrics_that_a_search_reads_itself(metrics: Any) -> None:
    result = search(SPACE, "random", ["acc"], evaluator=lambda arch: scored(metrics=metrics), budget=3)
    assert len(result.trials) == 3
    assert (result.best is None) == ("flops" in metrics)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in strategies.names() if n not in ("bayesian", "reinforce")])
@pytest.mark.parametrize("values", [(1.7e308, -1.7e308), (5e-324, -0.0), (1.0, 1.0)], ids=str)
def test_scores_at_the_ends_of_what_a_float_holds(name: str, values: tuple[float, float]) -> None:
    def extreme(architecture: Architecture) -> float:
        return values[sum(architecture.decisions) % 2]

    result = search(SPACE, name, ["acc"], evaluator=extreme, budget=12)  # type: ignore[arg-type]
    assert len(result.trials) == 12
    assert result.best is not None
    assert result.best.evaluation.scores["acc"] == max(values)


class Known(Table):
    """A table that gives what it is told to."""

    def accuracy(self, arch: Architecture) -> Any:
        return self.give()  # type: ignore[attr-defined]


def with_table(give: Callable[[], Any]) -> SearchResult:
    table = Known("mine", "accuracy", "digits", SPACE, {})
    vars(table)["give"] = give
    return search(SPACE, "random", ["acc"], evaluator=lambda architecture: scored(), budget=3, table=table)


@pytest.mark.parametrize(
    ("give", "metric", "message"),
    [
        (lambda: np.float32(0.5), 0.5, ""),
        (lambda: None, None, ""),
        (lambda: math.nan, None, ""),
        (lambda: "x", None, "^the accuracy of the table is not known: expected a number, got the text 'x'"),
        (
            lambda: math.inf,
            None,
            "^the accuracy of the table is not known: expected a finite number, got inf",
        ),
        (lambda: 1 / 0, None, "^the accuracy of the table is not known: ZeroDivisionError"),
    ],
)
def test_what_a_table_gives(give: Callable[[], Any], metric: float | None, message: str) -> None:
    for trial in with_table(give).trials:
        assert trial.evaluation.status is OK
        assert trial.evaluation.metrics.get("accuracy") == metric
        assert_matches(message, trial.evaluation.message)


class Phone(HardwareModel):
    """A model that predicts what it is told to."""

    quantity, device = "latency", "phone"

    def __init__(self, give: Callable[[Architecture], Any], why: Callable[[], Any] = lambda: "why") -> None:
        self.give, self.why = give, why

    def predict(self, arch: Architecture) -> float:
        return self.give(arch)  # type: ignore[no-any-return]

    def explain(self, arch: Architecture) -> str:
        return self.why()  # type: ignore[no-any-return]

    def describe(self) -> dict[str, Any]:
        return {"name": "phone", "path": Path("a"), "size": np.int64(3)}


def raises(arch: Architecture) -> float:
    raise RuntimeError("no signal")


def test_models_that_raise_or_give_no_number() -> None:
    def odd(arch: Architecture) -> Any:
        return np.float32(2) if sum(arch.decisions) % 2 else raises(arch)

    result = search(SPACE, "random", ["acc"], {"latency": 3}, 8, lambda arch: scored(), hardware=[Phone(odd)])
    assert all(sum(t.architecture.decisions) % 2 for t in result.trials)
    assert result.run.config.config["hardware"] == [{"name": "phone", "path": "a", "size": 3}]
    for model, message in [
        (Phone(raises), "RuntimeError: no signal"),
        (Phone(lambda arch: "x"), "expected a number, got the text 'x'"),
        (Phone(lambda arch: math.nan), "why"),
        (Phone(lambda arch: math.nan, lambda: 1 / 0), "ZeroDivisionError: division by zero"),
    ]:
        result = search(SPACE, "random", ["-latency"], budget=2, hardware=[model])
        assert {t.evaluation.message for t in result.trials} == {f"latency is not known: {message}"}
        with pytest.raises(UserError, match=f"not known for .*: {message}"):
            search(SPACE, "random", ["-latency"], {"latency": 3}, 2, hardware=[model])


def test_networks_that_cannot_be_counted_are_trials_all_the_same() -> None:
    def network(width: int) -> Any:
        raise RuntimeError(f"no width {width}")

    space = spaces.custom(network, {"width": [1, 2, 3]})
    result = search(space, "random", ["acc"], evaluator=lambda architecture: scored(), budget=3)
    assert [t.evaluation.status for t in result.trials] == [OK] * 3
    assert all(math.isnan(t.evaluation.metrics["flops"]) for t in result.trials)
    assert result.best is not None
    assert result.pareto == ()
    with pytest.raises(UserError, match=r"flops <= 1,000 .*not known for .*: RuntimeError: no width"):
        search(space, "random", ["acc"], {"flops": 1000}, evaluator=lambda architecture: scored(), budget=3)


def test_a_callback_that_raises_ends_the_search_with_the_trial_kept(tmp_path: Path) -> None:
    def stop(trial: Trial) -> None:
        if trial.number == 2:
            raise StopIteration("enough")

    judge: Evaluator = Judge(scored)
    common: dict[str, Any] = {"objectives": ["acc"], "evaluator": judge, "store": tmp_path / "runs.db"}
    with pytest.raises(StopIteration, match="enough"):
        search(SPACE, "random", **common, budget=5, on_trial=stop)
    assert len(search(SPACE, "random", **common, budget=5, resume=True).trials) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2**63}, "seed: expected a whole number of 64 bits, got 9223372036854775808"),
        ({"seed": "x"}, "seed: expected a whole number of 64 bits, got the text 'x'"),
        ({"budget": 2.5}, "budget: expected a positive number of trials, got 2.5"),
        ({"num_classes": "ten"}, "num_classes: expected a positive integer, got the text 'ten'"),
        (
            {"constraints": {"flops": math.inf}},
            "constraint 'flops': expected an upper bound, a finite number",
        ),
        ({"constraints": {"flops": "few"}}, "constraint 'flops': .* got the text 'few'"),
        ({"config": {"net": object()}}, r"config\.net: expected JSON values .* got object"),
        ({"config": {"lr": math.nan}}, r"config\.lr: expected JSON values, got nan"),
        ({"config": {1: 2, "1": 3}}, "config: two of its names are the same text in JSON"),
        ({"config": {(1, 2): 3}}, "config: expected names that are text, got tuple"),
    ],
)
def test_settings_that_no_store_can_hold_are_refused_at_once(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    judge = Judge(scored)
    arguments: dict[str, Any] = {"objectives": ["acc"], "evaluator": judge, "store": tmp_path / "runs.db"}
    with pytest.raises(UserError, match=message):
        search(SPACE, "random", **arguments | changes)
    assert judge.calls == 0


def test_settings_of_numpy_and_paths_are_those_of_python(tmp_path: Path) -> None:
    judge = Judge(scored)
    judge.config = {
        "lr": np.float32(0.5),
        "shape": (1, np.int64(2)),
        "data": Path("x/y"),
        "on": np.bool_(True),
    }  # type: ignore[dict-item]
    common: dict[str, Any] = {"objectives": ["acc"], "strategy": "random", "store": tmp_path / "runs.db"}
    first = search(
        SPACE, **common, evaluator=judge, budget=np.int64(2), seed=np.int32(1), num_classes=np.int8(9)
    )
    assert first.run.config.config["evaluator"] == {"lr": 0.5, "shape": [1, 2], "data": "x/y", "on": True}
    judge.config = {"lr": 0.5, "shape": [1, 2], "data": os.fspath("x/y"), "on": True}  # type: ignore[dict-item]
    again = search(SPACE, **common, evaluator=judge, budget=3, seed=1, num_classes=9, resume=True)
    assert len(again.trials) == 3
