"""Every registered strategy passes the conformance checks; so does one written by somebody else."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from statistics import mean

import pytest

from pynas import strategies
from pynas._errors import UserError
from pynas.testing.strategies import CHECKS, ToySpace, drive, toy_score
from pynas.trial import Evaluation, Status, Trial

VARIANTS = {name: partial(strategies.create, name) for name in strategies.names()} | {
    "evolution-crossover": partial(
        strategies.create, "evolution", population_size=8, sample_size=3, crossover=0.5
    ),
    "nsga2-small": partial(strategies.create, "nsga2", population_size=5, crossover=0.2),
    "local_search-whole": partial(strategies.create, "local_search", whole_neighbourhood=True),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", VARIANTS)
def test_strategy(name, check):
    check(VARIANTS[name])


def test_random_without_canonical_forms_is_a_uniform_sample():
    space = ToySpace(length=3, choices=3)
    proposed = drive(strategies.create("random", space, seed=0, distinct=False), 100)
    assert set(proposed) == set(space.all())
    assert len(proposed) == space.size == 27
    # Each architecture is equally likely to be among the first: chi-square over 27 cells, 99.9 % quantile 54.
    counts = Counter(
        architecture
        for seed in range(900)
        for architecture in drive(strategies.create("random", space, seed=seed, distinct=False), 3)
    )
    assert sum((counts[architecture] - 100) ** 2 / 100 for architecture in space.all()) < 54


class Ordered(ToySpace):
    """No two architectures are the same."""

    def canonical(self, arch):
        return arch


class Population:
    """Regularised evolution written out from the paper's Algorithm 1, to compare with."""

    def __init__(self, space, rng, size, sample):
        self.space, self.rng, self.size, self.sample, self.members = space, rng, size, sample, []

    def child(self):
        drawn = [self.members[self.rng.choices(range(self.size))[0]] for _ in range(self.sample)]
        return self.space.mutate(max(drawn, key=lambda member: member[1])[0], self.rng)

    def tell(self, architecture, score):
        self.members.append((architecture, score))
        del self.members[: max(0, len(self.members) - self.size)]


def test_evolution_follows_the_paper():
    """Where nothing is a duplicate, proposals are those of Algorithm 1 from the same generator."""
    space = Ordered(length=60, choices=20)
    strategy = strategies.create("evolution", space, seed=3, population_size=10, sample_size=4)
    rng = random.Random(3)
    paper = Population(space, rng, 10, 4)
    for number in range(80):
        expected = space.sample(rng) if number < 10 else paper.child()
        assert strategy.ask() == expected
        score = toy_score(expected)
        strategy.tell(Trial(number, expected, Evaluation(Status.OK, {"toy": score})))
        paper.tell(expected, score)


@pytest.mark.slow
def test_evolution_beats_random_search():
    space = ToySpace(length=8, choices=6)

    def best(name, seed):
        strategy = strategies.create(name, space, seed=seed)
        return max(toy_score(arch) for arch in drive(strategy, 300, evaluator=always))

    def always(architecture):
        return Evaluation(Status.OK, {"toy": toy_score(architecture)})

    assert all(best("evolution", seed) > best("random", seed) + 10 for seed in range(5))


def test_evolution_with_several_objectives_weighs_them_by_rank():
    """Two independent goals on scales a trillion apart: both improve."""
    space = Ordered(length=10, choices=6)
    strategy = strategies.create("evolution", space, seed=0, objectives=("left", "right"), population_size=30)

    def two(architecture):
        decisions = architecture.decisions
        return Evaluation(Status.OK, {"left": 1e6 * sum(decisions[:5]), "right": 1e-6 * sum(decisions[5:])})

    late = drive(strategy, 600, evaluator=two)[-100:]
    assert mean(sum(arch.decisions[:5]) for arch in late) > 18  # of all architectures: 12.5
    assert mean(sum(arch.decisions[5:]) for arch in late) > 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 0}, "population_size: expected at least 1"),
        ({"sample_size": 0}, "sample_size: expected at least 1"),
        ({"crossover": 1.5}, "crossover: expected a probability"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        strategies.create("evolution", ToySpace(), **options)
