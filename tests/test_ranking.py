from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.ranking.correlation import kendall, spearman
from pynas.ranking.rank import rank_scores, rank_trials
from pynas.trial import Evaluation, Status, Trial


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    accuracy = rng.normal(90, 2, 200).round(1)  # rounding makes ties
    score = accuracy + rng.normal(0, 3, 200)
    return score, accuracy


def test_values_equal_scipy(data):
    score, accuracy = data
    tied = score.round(0)
    ranking = rank_scores({"a": score, "tied": tied, "reverse": -score}, accuracy, resamples=50)
    for name, values in {"a": score, "tied": tied, "reverse": -score}.items():
        correlation = ranking.correlations[name]
        assert correlation.kendall.value == pytest.approx(
            stats.kendalltau(values, accuracy).statistic, abs=1e-12
        )
        assert correlation.spearman.value == pytest.approx(
            stats.spearmanr(values, accuracy).statistic, abs=1e-12
        )
        top = accuracy >= np.sort(accuracy)[-10]  # 5 % of 200, ties included
        assert correlation.count_top == top.sum() >= 10
        expected = stats.kendalltau(values[top], accuracy[top]).statistic
        assert correlation.kendall_top.value == pytest.approx(expected, abs=1e-12)


def test_weighted_statistics_equal_scipy_on_the_resample(data):
    rng = np.random.default_rng(1)
    score, accuracy = data[0].round(0)[:40], data[1][:40]
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=20)
    for row, tau, rho in zip(
        weights,
        kendall(score, accuracy, weights.astype(float)),
        spearman(score, accuracy, weights.astype(float)),
        strict=True,
    ):
        x, y = np.repeat(score, row), np.repeat(accuracy, row)
        assert tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.slow
def test_intervals_equal_a_plain_bootstrap(data):
    score, accuracy = data
    estimate = rank_scores({"a": score}, accuracy, resamples=2000).correlations["a"]
    rng = np.random.default_rng(5)
    draws = rng.integers(0, len(score), (1000, len(score)))
    taus = [stats.kendalltau(score[i], accuracy[i]).statistic for i in draws]
    assert estimate.kendall.low == pytest.approx(np.percentile(taus, 2.5), abs=0.01)
    assert estimate.kendall.high == pytest.approx(np.percentile(taus, 97.5), abs=0.01)
    assert estimate.kendall.low < estimate.kendall.value < estimate.kendall.high
    assert estimate.spearman.low < estimate.spearman.value < estimate.spearman.high


def test_seed(data):
    score, accuracy = data
    first, again, other = (
        rank_scores({"a": score}, accuracy, resamples=100, seed=seed).correlations["a"] for seed in (0, 0, 1)
    )
    assert first == again
    assert first.kendall.value == other.kendall.value
    assert first.kendall.low != other.kendall.low


def test_non_finite_scores_are_excluded_and_counted(data):
    score, accuracy = data
    holes = score.copy()
    holes[:30] = math.nan
    holes[30] = math.inf
    correlation = rank_scores({"a": holes}, accuracy, resamples=10).correlations["a"]
    assert (correlation.count, correlation.excluded) == (169, 31)
    assert correlation.kendall.value == pytest.approx(stats.kendalltau(score[31:], accuracy[31:]).statistic)


def test_constant_score_has_no_correlation(data):
    _, accuracy = data
    ranking = rank_scores({"constant": np.ones(200)}, accuracy, resamples=10)
    assert math.isnan(ranking.correlations["constant"].kendall.value)
    assert json.loads(ranking.to_json())["correlations"]["constant"]["spearman"] is None


def test_small_samples():
    correlation = rank_scores({"a": [1, 2, 3, 4]}, [1, 2, 3, 4], resamples=100).correlations["a"]
    assert correlation.kendall.value == 1.0
    assert correlation.kendall_top is None
    with pytest.raises(UserError, match="at least 3 architectures with a known accuracy, got 2"):
        rank_scores({"a": [1, 2]}, [1, 2])
    with pytest.raises(UserError, match=r"score 'a': only 2 of 3 values are finite"):
        rank_scores({"a": [1, 2, math.nan]}, [1, 2, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": {"a": [1, 2]}}, r"scores\['a'\]: expected 3 values"),
        ({"accuracy": [1, 2, math.nan]}, "accuracy: expected finite numbers"),
        ({"top": 0}, "top: expected a share"),
        ({"confidence": 95}, "confidence: expected a number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        rank_scores(**{"scores": {"a": [1, 2, 3]}, "accuracy": [1, 2, 3], **arguments})


def test_json(data):
    score, accuracy = data
    record = json.loads(rank_scores({"a": score}, accuracy, resamples=10, accuracy_label="test %").to_json())
    assert record["accuracy"] == "test %"
    assert record["architectures"] == 200
    assert set(record["correlations"]["a"]["kendall"]) == {"value", "low", "high"}


def test_trials_with_baselines():
    def trial(number, score, accuracy, status=Status.OK):
        metrics = {"params": 2.0 * number, "flops": -1.0 * number}
        if accuracy is not None:
            metrics["accuracy"] = accuracy
        evaluation = Evaluation(status, {"zico": score, "snip": 1.0 * number}, metrics)
        return Trial(number, Architecture("toy", (number,)), evaluation)

    trials = [trial(i, float(i), 50.0 + i) for i in range(10)]
    trials.append(trial(10, math.nan, 70.0, Status.FAILED))
    trials.append(trial(11, 3.0, None))
    ranking = rank_trials(trials, ["zico", "snip"], resamples=10)
    assert list(ranking.correlations) == ["zico", "snip", "params", "flops"]
    assert (ranking.correlations["zico"].count, ranking.correlations["zico"].excluded) == (10, 1)
    assert (ranking.correlations["snip"].count, ranking.correlations["snip"].excluded) == (11, 0)
    assert ranking.correlations["flops"].kendall.value == -1.0
    assert ranking.labels[3] == "(3,)"
    with pytest.raises(UserError, match="none of these trials has a known accuracy"):
        rank_trials([trial(11, 3.0, None)], ["zico"])


def test_published_correlations(shared_data):
    """Spearman of published scores with CIFAR-10 test accuracy over the 9,445 cells that have them."""
    published = {"nwot": 0.811, "params": 0.799, "synflow": 0.778, "snip": 0.603}
    with (
        np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False) as table,
        np.load(shared_data / "nb201_proxies.npz", allow_pickle=False) as proxies,
    ):
        known = table["test200_cifar10"][proxies["index"]]
        scores = {name: proxies[f"cifar10/{name}"] for name in published}
    ranking = rank_scores(scores, known, resamples=5)
    for name, value in published.items():
        assert ranking.correlations[name].spearman.value == pytest.approx(value, abs=6e-4)


def test_params_over_the_whole_table(shared_data):
    """Params against CIFAR-10 over all 15,625 cells: Kendall .578, Spearman .753, .02 within the top 5 %."""
    with np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False) as table:
        ranking = rank_scores({"params": table["params_m_cifar10"]}, table["test200_cifar10"], resamples=5)
    correlation = ranking.correlations["params"]
    assert correlation.kendall.value == pytest.approx(0.578, abs=6e-4)
    assert correlation.spearman.value == pytest.approx(0.753, abs=6e-4)
    assert correlation.kendall_top.value == pytest.approx(0.02, abs=6e-3)
