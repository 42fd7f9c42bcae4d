from __future__ import annotations

import itertools
import random
import sys

import numpy as np
import pytest

from pynas import strategies
from pynas._errors import UserError
from pynas.ranking.pareto import hypervolume, inverted_generational_distance, pareto_front
from pynas.run import search
from pynas.testing.strategies import ToySpace, drive
from pynas.trial import Evaluation, Status


class Ordered(ToySpace):
    """No two architectures are the same."""

    def canonical(self, arch):
        return arch


def conflict(architecture):
    """Two goals that cannot both be met: a sum of squares, and few decisions that differ from their left."""
    d = architecture.decisions
    return Evaluation(
        Status.OK,
        {
            "large": float(sum(x * x for x in d)),
            "smooth": -float(sum((a - b) ** 2 for a, b in itertools.pairwise(d)) + d[0]),
        },
    )


def volume(architectures):
    points = [list(conflict(arch).scores.values()) for arch in architectures]
    return hypervolume(points, [0, -300])


def test_it_covers_more_of_the_front_than_random_search():
    space = Ordered(length=10, choices=6)
    for seed in range(3):
        found = {
            name: volume(
                drive(
                    strategies.create(name, space, seed=seed, objectives=("large", "smooth")),
                    400,
                    evaluator=conflict,
                )
            )
            for name in ("nsga2", "random")
        }
        assert found["nsga2"] > 1.2 * found["random"], found


def weighted(architecture):
    """Two linear goals with real weights: no ties."""
    weights = np.random.default_rng(3).normal(size=(2, len(architecture.decisions)))
    a, b = (weights @ np.array(architecture.decisions)).tolist()
    return Evaluation(Status.OK, {"large": a, "smooth": b})


def test_generations_are_selected_as_the_paper_says():
    """Against ranks and crowding distances worked out by brute force."""
    space = Ordered(length=6, choices=5)
    strategy = strategies.create("nsga2", space, seed=1, objectives=("large", "smooth"), population_size=12)
    pool = []
    for _ in range(6):
        asked = drive(strategy, 12, evaluator=weighted)
        pool = survivors(pool + [(a, tuple(weighted(a).scores.values())) for a in asked], 12)
        assert {arch for arch, _ in strategy._parents} == {arch for arch, _ in pool}


def survivors(members, count):
    rest, chosen = list(members), []
    while len(chosen) < count and rest:
        front = [
            (a, f)
            for a, f in rest
            if not any(g != f and all(x >= y for x, y in zip(g, f, strict=True)) for _, g in rest)
        ]
        distance = dict.fromkeys(range(len(front)), 0.0)
        for k in range(2):
            order = sorted(range(len(front)), key=lambda i: front[i][1][k])
            values = [front[i][1][k] for i in order]
            width = values[-1] - values[0]
            for p, i in enumerate(order):
                edge = p in (0, len(order) - 1)
                distance[i] += np.inf if edge else (values[p + 1] - values[p - 1]) / width if width else 0.0
        taken = sorted(distance, key=lambda i: -distance[i])[: count - len(chosen)]
        chosen += [front[i] for i in taken]
        rest = [m for m in rest if m not in front]
    return chosen


def test_search_for_a_score_and_a_cost():
    space = ToySpace(length=6, choices=6)

    def score(architecture):
        return Evaluation(Status.OK, {"toy": float(sum(x * x for x in architecture.decisions))})

    result = search(space, "nsga2", ["toy", "-flops"], budget=150, evaluator=score, seed=2)
    for trial in result.trials:
        assert trial.evaluation.scores["-flops"] == -trial.evaluation.metrics["flops"]
    points = [(t.evaluation.scores["toy"], t.evaluation.scores["-flops"]) for t in result.trials]
    assert [t.number for t in result.pareto] == pareto_front(points)
    assert 0.4 < result.hypervolume <= 1
    only_costs = search(space, "nsga2", ["-params", "-flops"], budget=120)
    assert min(t.evaluation.metrics["params"] for t in only_costs.trials) <= 50


@pytest.mark.parametrize(
    ("options", "message"),
    [({"population_size": 1}, "population_size: expected at least 2"), ({"crossover": -1}, "crossover: ")],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        strategies.create("nsga2", ToySpace(), **options)


def test_without_pymoo(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.util.nds.non_dominated_sorting", None)
    with pytest.raises(UserError, match=r"needs the package pymoo; install it with: pip install"):
        strategies.create("nsga2", ToySpace())


def test_hypervolume_against_pymoo():
    from pymoo.indicators.hv import HV
    from pymoo.indicators.igd import IGD

    rng = random.Random(0)
    for axes in (1, 2, 3, 4):
        for _ in range(8):
            points = np.array(
                [[rng.randrange(-1, 6) for _ in range(axes)] for _ in range(rng.randrange(1, 15))]
            )
            expected = HV(ref_point=np.zeros(axes))(-points.astype(float))
            assert hypervolume(points, np.zeros(axes)) == pytest.approx(expected, abs=1e-9)
            front = np.array([[rng.random() for _ in range(axes)] for _ in range(5)])
            assert inverted_generational_distance(front, points) == pytest.approx(IGD(front)(points))
    assert hypervolume(np.empty((0, 2)), [0, 0]) == 0
    assert hypervolume([[1, 5], [3, 2]], [1, 1]) == 2  # the first adds nothing
    assert np.isnan(inverted_generational_distance([[0.0]], np.empty((0, 1))))
