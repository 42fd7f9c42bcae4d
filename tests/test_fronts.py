from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from scipy import stats

from pynas._errors import UserError
from pynas.ranking.fronts import compare_fronts
from pynas.ranking.rank import rank_scores


def test_a_comparison_by_hand():
    """Costs 0..4; the truth is on the first, third and fifth; the score takes the fourth for the third."""
    accuracy = [50.0, 40.0, 80.0, 70.0, 90.0]
    costs = [0.0, 1.0, 2.0, 3.0, 4.0]
    result = compare_fronts(
        {"right": accuracy, "off": [1.0, 0.0, 0.5, 2.0, 3.0], "last": [0, 0, 0, 0, 9.0]},
        accuracy,
        "latency",
        costs,
    )
    assert result.truth == (0, 2, 4)
    assert result.chosen["right"].members == (0, 2, 4)
    assert (result.chosen["right"].hypervolume_ratio, result.chosen["right"].distance) == (1, 0)
    assert result.chosen["off"].members == (0, 3, 4)
    # Scaled: accuracies .2, 0, .8, .6, 1 over 1 - cost / 4 = 1, .75, .5, .25, 0.
    best = 0.2 * 1 + 0.6 * 0.5
    assert result.chosen["off"].hypervolume_ratio == pytest.approx((0.2 * 1 + 0.4 * 0.25) / best)
    nearest = min(math.hypot(0.2, 0.25), math.hypot(0.6, 0.5), math.hypot(0.2, 0.5))
    assert result.chosen["off"].distance == pytest.approx(nearest / 3)
    assert result.chosen["last"].members == (0, 4)
    assert json.loads(json.dumps(result.to_dict()))["true_front"] == 3


def test_unknown_costs_and_scores():
    result = compare_fronts({"a": [1, 2, math.nan, 4]}, [1, 2, 3, 4], "energy", [1.0, math.nan, 2.0, 3.0])
    assert result.count == 3
    assert result.truth == (0, 2, 3)
    assert result.chosen["a"].members == (0, 3)
    with pytest.raises(UserError, match="energy is not known for any of 2 architectures"):
        compare_fronts({"a": [1, 2]}, [1, 2], "energy", [math.nan, math.nan])
    nothing = compare_fronts({"a": [math.nan] * 3}, [1, 3, 4], "energy", [1.0, 2.0, 4.0]).chosen["a"]
    assert (nothing.members, nothing.hypervolume_ratio) == ((), 0)
    assert math.isnan(nothing.distance)
    same = compare_fronts({"a": [1, 2]}, [5, 5], "energy", [1.0, 1.0]).chosen["a"]
    assert same.hypervolume_ratio == 1  # nothing to tell apart


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    cost = rng.uniform(1, 10, 200)
    accuracy = 80 + np.sqrt(cost) + rng.normal(0, 1, 200)
    return accuracy, cost, accuracy + rng.normal(0, 2, 200)


def test_ranking_under_a_constraint_equals_scipy_on_the_subset(data):
    accuracy, cost, score = data
    cost[7] = np.nan
    ranking = rank_scores(
        {"a": score}, accuracy, costs={"latency": cost}, bounds={"latency": 4}, resamples=50
    )
    left = cost <= 4
    found = ranking.correlations["a"]
    assert found.count_within == left.sum() < 100
    assert found.kendall_within.value == pytest.approx(
        stats.kendalltau(score[left], accuracy[left]).statistic
    )
    rho = stats.spearmanr(score[left], accuracy[left]).statistic
    assert found.spearman_within.value == pytest.approx(rho)
    assert found.spearman_within.low < rho < found.spearman_within.high
    top = accuracy >= np.sort(accuracy)[-10]
    rho = stats.spearmanr(score[top], accuracy[top]).statistic
    assert found.spearman_top.value == pytest.approx(rho)
    assert ranking.constraint == "latency <= 4"
    (front,) = ranking.fronts
    assert (front.cost, front.count) == ("latency", 199)
    record = json.loads(ranking.to_json())
    assert record["constraints"] == {"latency": 4}
    assert record["correlations"]["a"]["count_within"] == left.sum()
    assert 0 < record["fronts"][0]["scores"]["a"]["hypervolume_ratio"] <= 1


def test_without_a_constraint_there_is_nothing_within(data):
    accuracy, cost, score = data
    ranking = rank_scores({"a": score}, accuracy, costs={"latency": cost}, resamples=5)
    assert ranking.correlations["a"].kendall_within is None
    assert ranking.constraint == ""
    assert len(ranking.fronts) == 1


def test_constraints_that_nothing_meets(data):
    accuracy, cost, score = data
    with pytest.raises(UserError, match=r"constraint latency <= 0.5: none of 200 .*; the smallest is 1\.0"):
        rank_scores({"a": score}, accuracy, costs={"latency": cost}, bounds={"latency": 0.5})
    with pytest.raises(UserError, match="none of 200 architectures meets it; it is not known for any"):
        rank_scores({"a": score}, accuracy, costs={"latency": cost * np.nan}, bounds={"latency": 0.5})
    with pytest.raises(UserError, match="constraint 'energy': expected its cost for each of 200"):
        rank_scores({"a": score}, accuracy, costs={"latency": cost}, bounds={"energy": 0.5})
    few = rank_scores({"a": score}, accuracy, costs={"c": cost}, bounds={"c": np.sort(cost)[1]}, resamples=5)
    assert few.correlations["a"].count_within == 2
    assert few.correlations["a"].kendall_within is None


@pytest.mark.slow
def test_the_survey_on_real_tables(shared_data):
    """Published scores with the latencies of a Raspberry Pi 4: good overall, of no use within the top 5 %."""
    names = ("nwot", "synflow", "jacov", "params", "flops", "snip")
    with np.load(shared_data / "nb201_proxies.npz", allow_pickle=False) as proxies:
        index = proxies["index"]
        rows = np.array(random.Random(0).sample(range(len(index)), 1500))
        scores = {name: proxies[f"cifar10/{name}"][rows] for name in names}
    with np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False) as table:
        accuracy = table["test200_cifar10"][index[rows]]
    with np.load(shared_data / "nb201_hw.npz", allow_pickle=False) as table:
        latency = table["cifar10/raspi4_latency"][index[rows]]
    bounds = {"latency:raspi4": float(np.quantile(latency, 0.2))}
    costs = {"latency:raspi4": latency}
    ranking = rank_scores(scores, accuracy, costs=costs, bounds=bounds, resamples=3)
    for name in names:
        correlation = ranking.correlations[name]
        assert correlation.count_within == pytest.approx(300, abs=2)
        assert correlation.kendall.value > 0.4 > 0.2 > correlation.kendall_top.value
        assert 0.9 < ranking.fronts[0].chosen[name].hypervolume_ratio <= 1
        assert 0 < ranking.fronts[0].chosen[name].distance < 0.5
