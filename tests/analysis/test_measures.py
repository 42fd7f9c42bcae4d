"""The measures against counting: all draws among equals enumerated, sums written out, scipy."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pynas import analysis
from pynas._errors import UserError
from pynas.analysis import Protocol

RNG = np.random.default_rng(5)
CASES = [
    (RNG.permutation(9).astype(float), RNG.normal(size=9)),  # no equals
    (RNG.integers(0, 3, 9).astype(float), RNG.normal(size=9)),  # equal estimates
    (RNG.integers(0, 3, 9).astype(float), RNG.integers(0, 4, 9).astype(float)),  # equals in both
    (np.zeros(6), np.arange(6.0)),  # chance
    (np.array([2.0, 2.0]), np.array([1.0, 1.0])),
]


def draws(estimates: np.ndarray, count: int) -> list[list[int]]:
    """Every set of ``count`` items that may be the highest, each once."""
    items = range(len(estimates))
    found = []
    for chosen in itertools.combinations(items, count):
        rest = [i for i in items if i not in chosen]
        if not rest or not chosen or min(estimates[list(chosen)]) >= max(estimates[rest]):
            found.append(list(chosen))
    return found


@pytest.mark.parametrize(("estimates", "truth"), CASES)
def test_picking_is_the_mean_over_all_draws(estimates: np.ndarray, truth: np.ndarray) -> None:
    for count in range(1, len(truth) + 1):
        found = analysis.pick(estimates, truth, count, shares=(0.3,))
        best = [max(truth[i] for i in chosen) for chosen in draws(estimates, count)]
        assert found.regret == pytest.approx(truth.max() - np.mean(best))
        ranks = [1 + sum(other > value for other in truth) for value in best]
        assert found.rank == pytest.approx(np.mean(ranks))
        assert found.percentile == pytest.approx((np.mean(ranks) - 1) / (len(truth) - 1))
        good = sorted(truth, reverse=True)[math.ceil(0.3 * len(truth)) - 1]
        assert found.found[0.3] == pytest.approx(np.mean([value >= good for value in best]))


@pytest.mark.parametrize(("estimates", "truth"), CASES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_pruning_is_the_mean_over_all_draws(estimates: np.ndarray, truth: np.ndarray, share: float) -> None:
    size = len(truth)
    count = min(math.ceil(share * size), size - 1)
    found = analysis.prune(estimates, truth, share, shares=(0.3,))
    removed = draws(-estimates, count)
    worst = [set(chosen) for chosen in draws(-truth, count)]
    best = [set(chosen) for chosen in draws(truth, math.ceil(0.3 * size))]
    assert found.count == count
    assert found.worst_removed == pytest.approx(
        np.mean([len(set(r) & w) / count for r in removed for w in worst])
    )
    assert found.best_lost[0.3] == pytest.approx(
        np.mean([len(set(r) & b) / len(b) for r in removed for b in best])
    )
    left = [[truth[i] for i in range(size) if i not in r] for r in removed]
    assert found.gain == pytest.approx(np.mean([np.mean(kept) for kept in left]) - truth.mean())
    assert found.best_left == pytest.approx(np.mean([max(kept) for kept in left]) - truth.max())
    chance = analysis.prune(np.zeros(size), truth, share)
    assert chance.worst_removed == pytest.approx(count / size)
    assert chance.gain == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("estimates", "truth"), CASES)
def test_overlap_is_the_mean_over_all_draws(estimates: np.ndarray, truth: np.ndarray) -> None:
    count = math.ceil(0.4 * len(truth))
    pairs = itertools.product(draws(estimates, count), draws(truth, count))
    expected = np.mean([len(set(a) & set(b)) / count for a, b in pairs])
    assert analysis.overlap(estimates, truth, 0.4) == pytest.approx(expected)


@pytest.mark.slow
def test_picking_among_many_equals_is_the_hypergeometric_distribution() -> None:
    truth = np.arange(15_625.0)
    found = analysis.pick(np.zeros(15_625), truth, 100, shares=(0.01,))
    assert found.found[0.01] == pytest.approx(stats.hypergeom(15_625, 157, 100).sf(0), rel=1e-9)
    assert found.rank == pytest.approx(15_626 / 101, rel=1e-9)  # of the smallest of 100 of 15,625


def test_a_perfect_and_a_reversed_estimate() -> None:
    truth = np.arange(100.0)
    perfect, reversed_ = analysis.pick(truth, truth, 1), analysis.pick(-truth, truth, 1)
    assert (perfect.regret, perfect.rank, perfect.found) == (0, 1, {0.01: 1.0, 0.1: 1.0})
    assert (reversed_.regret, reversed_.rank, reversed_.percentile) == (99, 100, 1.0)
    assert analysis.prune(truth, truth, 0.25).worst_removed == 1
    assert analysis.prune(-truth, truth, 0.25).best_lost == {0.01: 1.0, 0.1: 1.0}


def test_stability_against_the_definitions() -> None:
    runs = np.random.default_rng(1).normal(size=(4, 7)) + np.linspace(0, 3, 7)
    runs[2] += 10  # a run that is better throughout changes no order
    found = analysis.stability(runs)
    assert found.std == pytest.approx(math.sqrt(np.mean([np.var(c, ddof=1) for c in runs.T])))
    residuals = [
        [runs[r, i] - runs[r].mean() - runs[:, i].mean() + runs.mean() for i in range(7)] for r in range(4)
    ]
    noise = np.sum(np.square(residuals)) / 18
    assert found.std_centred == pytest.approx(math.sqrt(noise))
    spread = np.var(runs.mean(axis=0), ddof=1)
    # ICC(3,1) of Shrout and Fleiss by mean squares: (BMS - EMS) / (BMS + (k - 1) EMS).
    between = 4 * spread
    assert found.reliability == pytest.approx((between - noise) / (between + 3 * noise))
    pairs = [stats.kendalltau(runs[a], runs[b]).statistic for a, b in itertools.combinations(range(4), 2)]
    assert (found.tau, found.tau_lowest) == pytest.approx((np.mean(pairs), min(pairs)))
    steps = [stats.kendalltau(runs[r], runs[r + 1]).statistic for r in range(3)]
    assert found.tau_consecutive == pytest.approx(steps)
    ranks = np.array([stats.rankdata(run) for run in runs]) / 7
    assert found.rank_std == pytest.approx(math.sqrt(ranks.var(axis=0, ddof=1).mean()))
    lacks = [runs[b].max() - runs[b, runs[a].argmax()] for a, b in itertools.permutations(range(4), 2)]
    assert found.best_regret == pytest.approx(np.mean(lacks))


def test_runs_that_agree_are_stable_and_noise_is_not() -> None:
    alike = analysis.stability(np.stack([np.arange(5.0), np.arange(5.0) + 3]))
    assert (alike.tau, alike.reliability, alike.rank_std) == (1, 1, 0)
    noise = analysis.stability(np.random.default_rng(2).normal(size=(20, 300)))
    assert noise.reliability < 0.02
    assert noise.std == pytest.approx(1, rel=0.05)
    constant = analysis.stability(np.ones((2, 4)))
    assert math.isnan(constant.reliability)
    assert math.isnan(constant.tau)


def test_rank_errors_are_differences_of_mid_ranks() -> None:
    estimates, truth = CASES[2]
    expected = (stats.rankdata(estimates) - stats.rankdata(truth)) / 8
    assert analysis.rank_errors(estimates, truth) == pytest.approx(expected)
    assert analysis.rank_errors(estimates, truth).sum() == pytest.approx(0)
    runs = np.stack([estimates, truth])
    assert analysis.rank_errors(runs, truth) == pytest.approx(expected / 2)


def test_a_planted_bias_is_found_and_its_absence_too() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=400)
    copies = {"favoured": rng.integers(0, 4, 400), "indifferent": rng.integers(0, 2, 400)}
    errors = analysis.rank_errors(truth + 0.5 * copies["favoured"], truth)
    favoured, indifferent = analysis.operation_bias(errors, copies, resamples=300)
    held = copies["favoured"]
    assert favoured.present == (held > 0).sum()
    assert favoured.error.value == pytest.approx(errors[held > 0].mean())
    assert favoured.contrast.value == pytest.approx(errors[held > 0].mean() - errors[held == 0].mean())
    assert favoured.slope.value == pytest.approx(stats.linregress(held, errors).slope)
    assert favoured.error.low > 0
    assert favoured.slope.low > 0
    assert favoured.contrast.low > 0
    assert indifferent.contrast.low < 0 < indifferent.contrast.high
    # The percentile interval of a mean is close to the normal one.
    half = 1.96 * errors[held > 0].std() / math.sqrt((held > 0).sum())
    assert favoured.error.high - favoured.error.value == pytest.approx(half, rel=0.2)
    large = analysis.cost_bias(errors, held, resamples=100)
    assert large.value == pytest.approx(stats.spearmanr(held, errors).statistic)


def test_operations_that_all_or_none_hold_have_no_contrast() -> None:
    errors = analysis.rank_errors([1, 3, 2, 4], [1, 2, 3, 4])
    everywhere, nowhere = analysis.operation_bias(errors, {"a": [2, 2, 2, 2], "b": [0, 0, 0, 0]})
    assert everywhere.error.value == pytest.approx(0)
    assert nowhere.present == 0
    assert math.isnan(everywhere.contrast.value)
    assert math.isnan(everywhere.slope.value)
    assert math.isnan(nowhere.error.value)


@pytest.fixture(scope="module")
def planted() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=60)
    noise = rng.normal(size=(2, 3, 2, 60))
    return {"good": truth + 0.3 * noise[0], "poor": truth + 3 * noise[1]}, truth


def test_settings_beside_each_other(planted: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    estimates, truth = planted
    found = analysis.analyze_sharing(
        estimates,
        truth,
        costs={"params": np.arange(60.0)},
        protocol=Protocol(resamples=200, picks=(1, 5, 99)),
    )
    good, poor = found.settings
    taus = [stats.kendalltau(run[-1], truth).statistic for run in estimates["good"]]
    assert good.kendall_by_seed == pytest.approx(taus)
    assert good.kendall.value == pytest.approx(np.mean(taus))
    rhos = [stats.spearmanr(run[-1], truth).statistic for run in estimates["good"]]
    assert good.spearman.value == pytest.approx(np.mean(rhos))
    best = np.argsort(truth)[-15:]
    tops = [stats.kendalltau(run[-1][best], truth[best]).statistic for run in estimates["good"]]
    assert good.kendall_top is not None
    assert good.kendall_top.value == pytest.approx(np.mean(tops))
    assert len(good.kendall_by_checkpoint) == 2
    assert good.kendall_by_checkpoint[1] == good.kendall.value
    everything = stats.kendalltau(estimates["good"].mean(axis=(0, 1)), truth).statistic
    assert good.averaged == pytest.approx(everything)
    assert [p.count for p in good.picks] == [1, 5] == [p.count for p in found.chance]
    regrets = [truth.max() - truth[run[-1].argmax()] for run in estimates["poor"]]
    assert poor.picks[0].regret == pytest.approx(np.mean(regrets))
    assert good.against_first is None
    assert poor.against_first is not None
    assert poor.against_first.value == pytest.approx(poor.kendall.value - good.kendall.value)
    assert poor.against_first.high < 0
    assert good.seeds is not None
    assert good.seeds.tau == analysis.stability(estimates["good"][:, -1]).tau
    assert [s.runs for s in good.checkpoints] == [2, 2, 2]
    assert good.prunings[1].worst_removed > poor.prunings[1].worst_removed > 0.25
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["settings"][0]["kendall"]["value"] == good.kendall.value


def test_one_run_and_repeated_truth() -> None:
    truth = np.array([[1.0, 2.0, 3.0, 4.0], [1.2, 2.0, 3.1, 3.9]])
    found = analysis.analyze_sharing({"one": np.full(4, 7.0)}, truth, protocol=Protocol(resamples=50))
    (one,) = found.settings
    assert one.estimates.shape == (1, 1, 4)
    assert one.seeds is None
    assert one.checkpoints == ()
    assert math.isnan(one.kendall.value)
    assert found.to_dict()["settings"][0]["kendall"]["value"] is None
    assert found.truth == pytest.approx(truth.mean(axis=0))
    assert found.truth_stability is not None
    assert found.truth_stability.tau == 1
    assert one.picks[0] == found.chance[0]  # equal estimates are chance


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: analysis.pick([1, 2], [1, 2, 3], 1), "estimates: expected one number for each of 3"),
        (lambda: analysis.pick([1, 2], [1, math.nan], 1), "truth: expected finite"),
        (lambda: analysis.pick([1, 2], [1, 2], 3), r"count: expected a number to pick in 1\.\.2"),
        (lambda: analysis.prune([1, 2], [1, 2], 0.0), "share: expected a share in"),
        (lambda: analysis.prune([1], [1], 0.5), "truth: expected at least 2"),
        (lambda: analysis.in_top([1.0], 2), "count: expected 0 to 1"),
        (lambda: analysis.stability([[1.0, 2.0]]), "estimates: expected at least 2 runs"),
        (lambda: analysis.analyze_sharing({}, [1, 2, 3]), "estimates: expected at least one setting"),
        (lambda: analysis.analyze_sharing({"a": [1, 2]}, [1, 2]), "truth: expected at least 3"),
        (lambda: analysis.analyze_sharing({"a": [1, 2]}, [1, 2, 3]), r"estimates\['a'\]: expected one"),
        (lambda: analysis.analyze_sharing({"a": [1, 2, 3]}, [1, 2, 3], labels=["x"]), "labels: expected 3"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
