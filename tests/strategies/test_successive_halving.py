"""Successive halving by hand, and fidelities on their way through a search."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import pynas
from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies import SearchStrategy
from pynas.testing.strategies import ToySpace, toy_score
from pynas.trial import Evaluation, Evaluator, Status, Trial


class Noisy:
    """The toy score, with an error that shrinks with the fidelity."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def at_fidelity(self, share: float) -> Evaluator:
        return Noisy(share)

    def __call__(self, architecture: Architecture) -> Evaluation:
        error = (1 - self.share) * (hash(tuple(sorted(architecture.decisions))) % 7 - 3)
        return Evaluation(Status.OK, scores={"toy": toy_score(architecture) + error})


def drive(strategy: SearchStrategy, first: int, count: int) -> list[tuple[Architecture, float]]:
    done = []
    for number in range(first, first + count):
        architecture = strategy.ask()
        fidelity = strategy.fidelity(architecture)
        evaluation = Noisy(fidelity)(architecture)
        metrics = {"fidelity": fidelity} if fidelity < 1 else {}
        evaluation = Evaluation(Status.OK, evaluation.scores, metrics)
        strategy.tell(Trial(number, architecture, evaluation))
        done.append((architecture, fidelity))
    return done


def test_the_best_third_of_each_rung_is_promoted() -> None:
    space = ToySpace(length=8, choices=6)
    done = drive(strategies.create("successive_halving", space, seed=1), 0, 130)
    rungs: list[list[Architecture]] = [[], [], []]
    promoted: list[set[Architecture]] = [set(), set()]
    for architecture, fidelity in done:  # each proposal against the rule
        due = []
        for k in (1, 0):
            ranking = sorted(rungs[k], key=lambda arch, k=k: -Noisy(3.0 ** (k - 2))(arch).scores["toy"])
            due += [(arch, k) for arch in ranking[: len(ranking) // 3] if arch not in promoted[k]]
        if due:
            assert (architecture, fidelity) == (due[0][0], pytest.approx(3.0 ** (due[0][1] - 1)))
            promoted[due[0][1]].add(architecture)
        else:
            assert fidelity == pytest.approx(1 / 9)
        rungs[round(np.log(fidelity) / np.log(3)) + 2].append(architecture)
    assert [len(rung) for rung in rungs] == pytest.approx([90, 30, 10], abs=6)
    assert max(Counter(done).values()) == 1


def test_state_keeps_rungs_and_promotions() -> None:
    space = ToySpace(length=8, choices=6)
    whole = drive(strategies.create("successive_halving", space, seed=2, eta=2), 0, 60)
    for stop in (0, 1, 7, 30):
        first = strategies.create("successive_halving", space, seed=2, eta=2)
        begun = drive(first, 0, stop)
        second = strategies.create("successive_halving", space, seed=5, eta=2)
        second.load_state(json.loads(json.dumps(first.state())))
        assert begun + drive(second, stop, 60 - stop) == whole


def test_a_search_passes_fidelities_on_and_resumes(tmp_path) -> None:
    space = spaces.get("nasbench201")
    shares = []

    class Counting(Noisy):
        config = {"noise": "by share"}  # noqa: RUF012 (what is counted is no part of it)

        def at_fidelity(self, share: float) -> Evaluator:
            shares.append(share)
            return Noisy(share)

    def search(budget: int, store: object = None, resume: bool = False) -> pynas.run.loop.SearchResult:
        return pynas.search(
            space,
            "successive_halving",
            ["toy"],
            budget=budget,
            evaluator=Counting(),
            store=store,
            resume=resume,
        )

    result = search(60)
    counts = Counter(trial.evaluation.metrics.get("fidelity", 1.0) for trial in result.trials)
    assert sorted(counts) == pytest.approx([1 / 9, 1 / 3, 1])
    assert len(shares) == 60 - counts[1.0]
    full = [trial for trial in result.trials if "fidelity" not in trial.evaluation.metrics]
    assert result.best == max(full, key=lambda trial: trial.evaluation.scores["toy"])
    search(25, tmp_path / "runs.db")
    resumed = search(60, tmp_path / "runs.db", resume=True)
    assert [(t.architecture, t.evaluation.scores) for t in resumed.trials] == [
        (t.architecture, t.evaluation.scores) for t in result.trials
    ]


def test_an_evaluator_without_fidelities_makes_full_evaluations() -> None:
    def evaluate(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, scores={"toy": toy_score(architecture)})

    result = pynas.search("nasbench201", "successive_halving", ["toy"], budget=30, evaluator=evaluate)
    assert not any("fidelity" in trial.evaluation.metrics for trial in result.trials)
    assert len({trial.architecture for trial in result.trials}) == 30


def test_proxies_take_fewer_images() -> None:
    torch = pytest.importorskip("torch")
    from pynas.evaluate import ProxyEvaluator

    inputs, targets = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    evaluator = ProxyEvaluator(spaces.get("nasbench201"), inputs, targets, ["grad_norm"])
    assert [len(evaluator.at_fidelity(share).inputs) for share in (1 / 100, 1 / 9, 1 / 3, 0.5, 1.0)] == [
        2,
        2,
        6,
        8,
        16,
    ]
    assert evaluator.at_fidelity(0.1).num_classes == evaluator.num_classes
    assert len(evaluator.inputs) == 16
    with pytest.raises(UserError, match="share: expected a fraction"):
        evaluator.at_fidelity(0.0)


@pytest.mark.slow
def test_soft_constraints_ask_the_search_for_their_costs() -> None:
    def evaluate(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, scores={"toy": toy_score(architecture)})

    options = {"targets": "activations<=1e5"}
    result = pynas.search(
        "nasbench201", "epnas", ["toy"], budget=3, evaluator=evaluate, strategy_options=options
    )
    assert all(trial.evaluation.metrics["activations"] > 0 for trial in result.trials)
    with pytest.raises(UserError, match="strategy epnas: cost 'speed': unknown"):
        pynas.search(
            "nasbench201", "epnas", ["toy"], evaluator=evaluate, strategy_options={"targets": "speed<=1"}
        )


@pytest.mark.parametrize("options", [{"eta": 1}, {"rungs": 0}])
def test_bad_options(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        strategies.create("successive_halving", ToySpace(), **options)
