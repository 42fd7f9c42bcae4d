"""Locality, diversity and shrinking, against definitions and the real table of NAS-Bench-201."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest

from pynas import lissnas, spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.testing.strategies import ToySpace, drive

SPACE = spaces.get("nasbench201")


class Ordered(ToySpace):
    """No two architectures are the same."""

    def canonical(self, arch: Architecture) -> Architecture:
        return arch


def height(arch: Architecture) -> float:
    return float(sum(arch.decisions))


def test_autocorrelation_is_its_definition() -> None:
    space, rng = Ordered(), random.Random(3)
    walk = [space.sample(rng)]
    while len(walk) < 500:
        walk.append(space.mutate(walk[-1], rng))
    values = [height(arch) for arch in walk]
    mean = statistics.fmean(values)
    variance = statistics.fmean((v - mean) ** 2 for v in values)
    expected = [
        statistics.fmean((a - mean) * (b - mean) for a, b in zip(values, values[h:], strict=False)) / variance
        for h in (1, 2, 3)
    ]
    found = lissnas.autocorrelation(space, height, lags=3, steps=500, seed=3)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_autocorrelation_of_a_sum_of_decisions_is_known() -> None:
    # One of five decisions is drawn anew out of the other three: its deviation becomes -1/3 of itself, so a
    # step keeps 1 - (1 + 1/3) / 5 of the sum's.
    found = lissnas.autocorrelation(Ordered(), height, lags=3, steps=60_000, seed=0)
    assert found == pytest.approx([(11 / 15) ** h for h in (1, 2, 3)], abs=0.03)


def test_diversity_is_the_mean_distance() -> None:
    rng = random.Random(0)
    members = [SPACE.sample(rng) for _ in range(20)]
    exact = statistics.fmean(SPACE.distance(a, b) for a, b in itertools.combinations(members, 2))
    assert lissnas.diversity(SPACE, members) == pytest.approx(exact)
    assert lissnas.diversity(SPACE, members, pairs=100) == pytest.approx(exact, abs=0.5)
    assert math.isnan(lissnas.diversity(SPACE, members[:1]))


def test_pockets_are_connected_parts() -> None:
    a, b = SPACE.from_index(3), SPACE.from_index(4000)
    around_a, around_b = list(SPACE.neighbours(a)), list(SPACE.neighbours(b))
    assert SPACE.distance(a, b) > 3
    found = lissnas.pockets(SPACE, [b, *around_a, a, *around_b[:5]])
    assert [set(pocket) for pocket in found] == [{a, *around_a}, {b, *around_b[:5]}]


def test_shrink_index() -> None:
    assert lissnas.shrink_index(80, 94, 94, 15_625, 1) == 1
    assert lissnas.shrink_index(80, 80, 94, 15_625, 100) == 0
    assert lissnas.shrink_index(80, 94, 94, 15_625, 15_625) == 0
    assert lissnas.shrink_index(80, 87, 94, 10_000, 100) == pytest.approx(0.25)
    assert lissnas.shrink_index(80, 70, 94, 15_625, 100) < 0
    for bad in ((94, 90, 94, 10, 5), (80, 90, 94, 10, 11), (80, 90, 94, 10, 0), (80, 90, 94, 1, 1)):
        with pytest.raises(UserError):
            lissnas.shrink_index(*bad)


def test_bad_input() -> None:
    with pytest.raises(UserError, match="1 <= seeds <= samples"):
        lissnas.lissnas(SPACE, height, samples=5, seeds=6)
    with pytest.raises(UserError, match="finite number for"):
        lissnas.lissnas(SPACE, lambda arch: math.nan)
    with pytest.raises(UserError, match="everywhere on the walk"):
        lissnas.autocorrelation(SPACE, lambda arch: 1.0, steps=50)
    with pytest.raises(UserError, match="1 <= lags < steps"):
        lissnas.autocorrelation(SPACE, height, lags=6, steps=6)


@pytest.mark.slow
def test_shrinks_an_open_ended_space() -> None:
    space = spaces.get("epnas")
    found = lissnas.lissnas(space, lambda arch: -float(len(arch.decisions)), samples=20, seeds=3, radius=1)
    assert all(space.check(arch) for arch in found.space.all())
    assert found.iterations[0].quality > found.quality_before


@pytest.fixture(scope="module")
def accuracy(shared_data) -> dict[Architecture, float]:
    table = np.load(shared_data / "nb201_accuracy.npz", allow_pickle=False)["test200_cifar10"]
    return {arch: float(value) for arch, value in zip(SPACE.all(), table, strict=True)}


@pytest.mark.slow
def test_locality_of_nasbench201(accuracy: dict[Architecture, float]) -> None:
    # Along 100,000 steps the table gives .55 .34 .24 .17 .13 .09.
    found = lissnas.autocorrelation(SPACE, accuracy.__getitem__, steps=100_000)
    assert found == pytest.approx([0.55, 0.34, 0.24, 0.17, 0.13, 0.09], abs=0.03)


@pytest.mark.slow
def test_shrinks_nasbench201_to_good_and_diverse_pockets(accuracy: dict[Architecture, float]) -> None:
    whole = statistics.fmean(accuracy.values())
    for seed in range(3):
        rounds: list[lissnas.Iteration] = []
        found = lissnas.lissnas(SPACE, accuracy.__getitem__, seed=seed, on_iteration=rounds.append)
        assert tuple(rounds) == found.iterations
        kept = [accuracy[arch] for arch in found.space.all()]
        assert statistics.fmean(kept) > whole + 4
        assert found.space.size < 0.1 * 15_625
        assert max(kept) > 93.9, "one of the best must survive"
        assert lissnas.diversity(SPACE, found.space.members) > 1.5
        assert len(found.known) < 1000
        assert all(accuracy[arch] == value for arch, value in found.known.items())
        again = lissnas.lissnas(SPACE, accuracy.__getitem__, seed=seed)
        assert again.space.members == found.space.members
        searched = drive(strategies.create("evolution", found.space, seed=seed), 60)
        assert set(searched) <= set(found.space.all())
