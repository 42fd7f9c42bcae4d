"""What a search costs beside scoring: ask, tell, canonical form, store. Target 2 ms a trial, aim 0.5."""

from __future__ import annotations

import itertools
import json

import pytest

from pynas import spaces, strategies
from pynas.run import search
from pynas.trial import Evaluation, Status

SPACE = spaces.get("nasbench201")
BUDGET = 500


def evaluate(architecture):
    """No work: a score from the decisions, so that what remains is the search itself."""
    return Evaluation(Status.OK, {"score": float(sum(d * d for d in architecture.decisions))})


@pytest.mark.parametrize("constraints", [None, {"flops": 80e6}], ids=["free", "flops80M"])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "sqlite"])
@pytest.mark.parametrize("strategy", strategies.names())
@pytest.mark.benchmark(group="search overhead, 500 trials of nasbench201")
def test_search_overhead(benchmark, tmp_path, strategy, stored, constraints):
    SPACE.canonical(SPACE.from_index(0))  # its table of canonical forms is made once in a process
    files = itertools.count()

    def run():
        store = tmp_path / f"{next(files)}.db" if stored else None
        return search(
            SPACE,
            strategy,
            ["score"],
            constraints=constraints,
            budget=BUDGET,
            evaluator=evaluate,
            store=store,
        )

    result = benchmark.pedantic(run, rounds=7, warmup_rounds=1)
    assert len(result.trials) == BUDGET
    stats = benchmark.stats.stats if benchmark.stats else None
    if stats is not None:
        benchmark.extra_info["ms_per_trial"] = 1e3 * stats.median / BUDGET
    benchmark.extra_info["overhead_ms_per_trial"] = 1e3 * result.overhead_seconds / BUDGET


@pytest.mark.parametrize("trials", [500, 5000])
@pytest.mark.benchmark(group="strategy state")
def test_state_as_json(benchmark, trials):
    strategy = strategies.create("random", SPACE)
    for _ in range(trials):
        strategy.ask()
    text = benchmark(lambda: json.dumps(strategy.state()))
    benchmark.extra_info["bytes"] = len(text)
