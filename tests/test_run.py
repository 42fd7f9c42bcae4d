from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest

from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.ranking.pareto import mean_ranks, pareto_front
from pynas.run import search
from pynas.store import Store
from pynas.store._database import TRIALS
from pynas.store._records import trial_columns
from pynas.testing.strategies import ToySpace, evaluate, toy_score
from pynas.trial import Evaluation, Status

SPACE = ToySpace(length=6, choices=6)
OPTIONS = {"population_size": 12, "sample_size": 4}


class Table:
    name = "toy-table"
    metric = "made up"
    dataset = "none"

    def accuracy(self, architecture: Architecture) -> float | None:
        return None if sum(architecture.decisions) % 5 == 0 else 50.0 + sum(architecture.decisions)


def judged(architecture):
    return evaluate(architecture)


judged.config = {"scores": "toy"}  # the same for all evaluators below that one run goes on with


def run(**changes):
    arguments = {
        "objectives": ["toy"],
        "budget": 60,
        "evaluator": judged,
        "seed": 1,
        "strategy_options": OPTIONS,
    }
    if changes.get("strategy", "evolution") != "evolution":
        del arguments["strategy_options"]
    return search(SPACE, **arguments | changes)


def facts(result):
    """Everything about the trials that must not depend on when and where they ran."""
    return [
        (
            t.number,
            t.architecture,
            t.evaluation.status,
            repr(dict(t.evaluation.scores)),
            dict(t.evaluation.metrics),
        )
        for t in result.trials
    ]


def test_search_finds_better_than_its_start():
    result = run(budget=300)
    valid = [trial for trial in result.trials if trial.evaluation.status is Status.OK]
    assert len(result.trials) == 300
    assert [trial.number for trial in result.trials] == list(range(300))
    assert result.best.evaluation.scores["toy"] == max(trial.evaluation.scores["toy"] for trial in valid)
    # The sum of squares is at its best near (5, 5, 5, 5, 5, 5) = 150; a dozen random forms end far below.
    assert max(trial.evaluation.scores["toy"] for trial in valid[:12]) < 130
    assert result.best.evaluation.scores["toy"] > 145
    assert 0 < result.overhead_seconds <= result.seconds


def test_metrics_are_costs_and_known_accuracy():
    seen = []
    result = run(table=Table(), on_trial=seen.append)
    assert tuple(seen) == result.trials
    for trial in result.trials:
        metrics = trial.evaluation.metrics
        assert metrics["params"] == SPACE.params(trial.architecture)
        assert metrics["flops"] == SPACE.macs(trial.architecture)
        assert metrics.get("accuracy") == Table().accuracy(trial.architecture)


def test_accuracy_does_not_steer():
    assert [t.architecture for t in run(table=Table()).trials] == [t.architecture for t in run().trials]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", strategies.names())
def test_constraints(strategy):
    result = run(strategy=strategy, constraints={"params": 100, "flops": 8000}, budget=40)
    assert len(result.trials) == 40
    for trial in result.trials:
        assert trial.evaluation.metrics["params"] <= 100
        assert trial.evaluation.metrics["flops"] <= 8000


@pytest.mark.slow
@pytest.mark.parametrize("strategy", strategies.names())
def test_impossible_constraint(strategy, tmp_path):
    seen = []
    with pytest.raises(UserError, match=r"no architecture of toy meets .*: params <= 5 \(smallest met: 10\)"):
        run(strategy=strategy, constraints={"params": 5}, store=tmp_path / "runs.db", on_trial=seen.append)
    assert seen == []


def test_space_smaller_than_budget():
    space = ToySpace()
    result = search(space, "exhaustive", ["toy"], evaluator=evaluate, budget=1000)
    assert len(result.trials) == space.num_forms


def test_pareto_front():
    result = run(budget=120)
    valid = [trial for trial in result.trials if trial.evaluation.status is Status.OK]
    point = lambda t: (t.evaluation.scores["toy"], -t.evaluation.metrics["flops"])  # noqa: E731
    expected = tuple(
        a
        for a in valid
        if not any(
            point(b) != point(a) and all(x >= y for x, y in zip(point(b), point(a), strict=True))
            for b in valid
        )
    )
    assert result.pareto == expected
    assert result.best in result.pareto


def test_several_objectives():
    def two(architecture):
        return Evaluation(Status.OK, {"toy": toy_score(architecture), "small": -sum(architecture.decisions)})

    result = run(evaluator=two, objectives=["toy", "small"], budget=50)
    ranks = mean_ranks([list(trial.evaluation.scores.values()) for trial in result.trials])
    assert ranks[result.best.number] == max(ranks)


def test_mean_ranks():
    assert mean_ranks([]) == []
    assert mean_ranks([(3.0,), (1.0,), (3.0,)]) == [1.5, 0.0, 1.5]
    assert mean_ranks([(1.0, 9.0), (2.0, 8.0), (3.0, 10.0)]) == [0.5, 0.5, 2.0]


def test_pareto_front_against_brute_force():
    rng = random.Random(0)
    for _ in range(50):
        points = [(rng.randrange(5), rng.randrange(5), rng.randrange(3)) for _ in range(rng.randrange(20))]
        expected = [
            i
            for i, a in enumerate(points)
            if not any(b != a and all(x >= y for x, y in zip(b, a, strict=True)) for b in points)
        ]
        assert pareto_front(points) == expected


def test_exceptions_and_non_finite_scores_are_failed_trials():
    def fragile(architecture):
        total = sum(architecture.decisions)
        if total % 5 == 1:
            raise RuntimeError("out of luck")
        score = math.nan if total % 5 == 2 else math.inf if total % 5 == 3 else toy_score(architecture)
        return Evaluation(Status.OK, {"toy": score})

    result = run(evaluator=fragile)
    for trial in result.trials:
        kind = sum(trial.architecture.decisions) % 5
        assert trial.evaluation.status is (Status.FAILED if kind in (1, 2, 3) else Status.OK)
        if kind == 1:
            assert trial.evaluation.message == "RuntimeError: out of luck"
        if kind == 2:
            assert trial.evaluation.message == "toy is not finite: nan"
    assert math.isfinite(result.best.evaluation.scores["toy"])


def test_all_failed():
    result = run(evaluator=lambda architecture: Evaluation(Status.FAILED, message="no"), budget=20)
    assert len(result.trials) == 20
    assert result.best is None
    assert result.pareto == ()


def test_user_error_in_the_first_evaluation_is_raised():
    def unusable(architecture):
        raise UserError("images: none of them can be read")

    with pytest.raises(UserError, match="images: none"):
        run(evaluator=unusable)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["acc"]}, r"objective 'acc': the evaluator does not give it; it gives: toy"),
        ({"objectives": []}, r"objectives: expected at least one"),
        ({"objectives": ["toy", "toy"]}, r"objectives: .* none twice"),
        ({"budget": 0}, r"budget: expected a positive number"),
        ({"strategy": "evolutoin"}, r"unknown search strategy .* Did you mean 'evolution'"),
        (
            {"strategy_options": {"population": 3}},
            r"unknown option 'population' .* population_size \(default 20\)",
        ),
        ({"strategy": "exhaustive", "strategy_options": {"x": 3}}, r"option 'x' .*it takes: none"),
        ({"constraints": {"latency": 3}}, r"constraint 'latency': unknown; known: params, flops"),
        ({"constraints": {"flops": math.nan}}, r"constraint 'flops': expected an upper bound"),
        ({"resume": True}, r"resume: needs a store"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(UserError, match=message):
        run(**changes, evaluator=lambda arch: Evaluation(Status.OK, {"toy": 1.0}))


def test_store_holds_the_result(tmp_path):
    result = run(store=tmp_path / "runs.db")
    with Store(tmp_path / "runs.db", read_only=True) as store:
        assert store.trials(store.run()) == result.trials
        assert store.run() == result.run
    assert result.run.provenance["versions"]["python"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", strategies.names())
def test_resume_in_steps_equals_one_run(tmp_path, strategy):
    whole = run(strategy=strategy, budget=150)
    for budget in (1, 2, 33, 34, 100, 149, 150):
        result = run(strategy=strategy, budget=budget, store=tmp_path / "runs.db", resume=True)
        assert facts(result) == facts(whole)[:budget]
    assert result.best.number == whole.best.number
    assert [trial.number for trial in result.pareto] == [trial.number for trial in whole.pareto]
    again = run(strategy=strategy, budget=10, store=tmp_path / "runs.db", resume=True)  # nothing left to do
    assert facts(again) == facts(whole)


def test_resume_with_other_settings(tmp_path):
    run(store=tmp_path / "runs.db", budget=5)
    with pytest.raises(UserError, match=r"config.strategy.sample_size: 5 instead of 4"):
        run(store=tmp_path / "runs.db", resume=True, strategy_options={**OPTIONS, "sample_size": 5})
    with pytest.raises(UserError, match=r"config.batch: 2 instead of null"):
        run(store=tmp_path / "runs.db", resume=True, config={"batch": 2})
    with pytest.raises(UserError, match=r"resume it, or use another store or seed"):
        run(store=tmp_path / "runs.db")


def test_resume_notices_a_strategy_that_changed(tmp_path):
    result = run(store=tmp_path / "runs.db", budget=40)
    with Store(tmp_path / "runs.db") as store, store._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM states")
        other = replace(result.trials[7], architecture=Architecture("toy", (0, 0, 0, 0, 0, 1)))
        columns = trial_columns(result.run, other)
        connection.execute(TRIALS.update().where(TRIALS.c.number == 7).values(columns))
    with pytest.raises(UserError, match=r"trial 7 is not what the strategy proposes now"):
        run(store=tmp_path / "runs.db", budget=50, resume=True)
    assert len(result.trials) == 40


def test_disk_full_then_resume(tmp_path):
    whole = run(budget=150)
    with Store(tmp_path / "runs.db") as store:
        store._connection.exec_driver_sql("PRAGMA max_page_count = 14")
        store._connection.rollback()
        with pytest.raises(UserError, match="the disk is full"):
            run(budget=150, store=store)
        kept = len(store.trials(store.run()))
    assert 0 < kept < 150
    assert facts(run(budget=150, store=tmp_path / "runs.db", resume=True)) == facts(whole)


@pytest.mark.slow
def test_keyboard_interrupt_leaves_the_store_consistent(tmp_path):
    whole = run(budget=60)

    class Interrupted:
        config = judged.config

        def __init__(self, after):
            self.after = after

        def __call__(self, architecture):
            self.after -= 1
            if self.after < 0:
                raise KeyboardInterrupt
            return evaluate(architecture)

    for stop in (1, 30, 55):
        with pytest.raises(KeyboardInterrupt):
            run(store=tmp_path / f"{stop}.db", evaluator=Interrupted(stop))
        with Store(tmp_path / f"{stop}.db", read_only=True) as store:
            assert len(store.trials(store.run())) == stop
        assert facts(run(store=tmp_path / f"{stop}.db", resume=True)) == facts(whole)


CHILD = textwrap.dedent("""
    import os, signal, sys, time
    import sqlalchemy
    from pynas.run import search
    from pynas.testing.strategies import ToySpace, evaluate

    path, budget, where, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

    def die(place):
        global count
        if place == where:
            count -= 1
            if count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def slow(architecture):
        die("evaluating")
        time.sleep(0.005)
        return evaluate(architecture)

    slow.config = {"scores": "toy"}

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def statement(connection, cursor, sql, *rest):
        die("writing " + " ".join(sql.split()[:3]))

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "commit")
    def commit(connection):
        die("committing")

    def told(trial):
        global first
        if first:
            print("told", flush=True)
        first = False
        die("told")

    first = True
    print("ready", flush=True)
    search(
        ToySpace(length=6, choices=6), objectives=["toy"], budget=budget, evaluator=slow, seed=1,
        strategy_options={"population_size": 12, "sample_size": 4}, store=path, resume=True,
        on_trial=told,
    )
""")


def start_child(path, budget, where="never", count=0):
    command = [sys.executable, "-c", CHILD, str(path), str(budget), where, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def check_prefix(path, whole):
    """The store holds an uninterrupted beginning of the search: no trial lost, none twice."""
    if path.exists() and path.stat().st_size:
        with Store(path) as store:
            stored = store.trials(store.run()) if store.runs() else ()
            assert [(t.number, t.architecture) for t in stored] == [
                (t.number, t.architecture) for t in whole[: len(stored)]
            ]
            return len(stored)
    return 0


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_random_moments(tmp_path):
    # 250 evaluations sleep 1.25 s, at most 0.3 s of it between two kills, however fast the machine is.
    budget, path = 250, tmp_path / "runs.db"
    whole = run(budget=budget)
    rng = random.Random(0)
    kills = progress = 0
    while True:
        with start_child(path, budget) as child:
            child.stdout.readline()
            if kills % 2:  # else a busy machine might not get to a trial in time, ever
                child.stdout.readline()
            time.sleep(rng.uniform(0.02, 0.3))
            finished = child.poll() is not None
            child.kill()
        kept = check_prefix(path, whole.trials)
        assert kept >= progress
        progress = kept
        if finished:
            assert child.returncode == 0
            break
        kills += 1
    assert kills >= 3
    assert facts(run(budget=budget, store=path, resume=True)) == facts(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("writing CREATE TABLE trials", 0),
        ("writing INSERT INTO runs", 0),
        ("evaluating", 0),
        ("told", 40),
        ("writing INSERT INTO trials", 45),
        ("writing DELETE FROM states", 20),
        ("writing INSERT INTO states", 20),
        ("committing", 30),
    ],
)
def test_killed_at_each_step(tmp_path, where, count):
    path = tmp_path / "runs.db"
    with start_child(path, 70, where, count) as child:
        child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    whole = run(budget=70)
    check_prefix(path, whole.trials)
    assert facts(run(budget=70, store=path, resume=True)) == facts(whole)


@pytest.mark.slow
def test_no_torch():
    modules = "run, ranking, report, store, strategies, testing.strategies"
    code = "import sys; " + "; ".join(f"import pynas.{name.strip()}" for name in modules.split(","))
    code += "; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
