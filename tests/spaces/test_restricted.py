"""A space with fewer choices is a space."""

from __future__ import annotations

import itertools
import random

import pytest

from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import NASBench201, Restricted, restrict, subset
from pynas.spaces.identity import identity
from pynas.supernet import UniformSampler
from pynas.testing.spaces import CHECKS, Check
from pynas.testing.strategies import drive
from pynas.trial import Evaluation, Status

pytestmark = pytest.mark.slow

PARENT = NASBench201(channels=4, num_cells=1)
FEW = [[1, 3], [0, 1, 2], [2, 3], [0, 4], [1, 2, 3], [2, 3]]


def few() -> Restricted:
    return restrict(PARENT, FEW)


def constrained() -> Restricted:
    """Of a space whose decisions constrain each other."""
    parent = spaces.get("transnas_macro")
    return restrict(
        parent, [choices if i else [1, 3] for i, choices in enumerate(map(range, parent.num_choices))]
    )


@pytest.mark.parametrize("make", [few, constrained])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, make: object, one_thread: None) -> None:
    assert callable(make)
    check(make())


def test_members_are_all_combinations() -> None:
    space = few()
    expected = {Architecture(PARENT.name, decisions) for decisions in itertools.product(*FEW)}
    assert set(space.all()) == expected
    assert space.size == len(expected) == 2 * 3 * 2 * 2 * 3 * 2
    assert all(space.contains(arch) == (arch in expected) for arch in PARENT.all())


def test_members_of_a_constrained_space_are_those_that_are_valid() -> None:
    space = constrained()
    assert set(space.all()) == {arch for arch in space.parent.all() if arch.decisions[0] in (1, 3)}
    assert [space.index(arch) for arch in space.all()] == list(range(space._known_size()))


def test_equal_networks_have_one_representative_that_is_a_member() -> None:
    space = few()
    classes: dict[Architecture, set[Architecture]] = {}
    for arch in space.all():
        assert space.contains(space.canonical(arch))
        classes.setdefault(PARENT.canonical(arch), set()).add(space.canonical(arch))
    assert {len(forms) for forms in classes.values()} == {1}


def test_draws_are_uniform() -> None:
    space, rng = few(), random.Random(0)
    drawn = [space.sample(rng).decisions for _ in range(3000)]
    for i, allowed in enumerate(FEW):
        for choice in allowed:
            assert abs(sum(d[i] == choice for d in drawn) / 3000 - 1 / len(allowed)) < 0.05


@pytest.mark.parametrize("name", ["darts_cnn", "nasbench101", "proxylessnas", "spos_shufflenet", "darts_rnn"])
def test_large_spaces_move_within_what_is_allowed(name: str) -> None:
    parent, rng = spaces.get(name), random.Random(3)
    space = restrict(parent, [range(count - (count > 2)) for count in parent.num_choices])
    arch = space.sample(rng)
    for _ in range(50):
        other = space.mutate(arch, rng)
        assert other != arch
        assert space.contains(space.canonical(other))
        arch = space.crossover(arch, other, rng)
        assert space.contains(arch)
    assert (space.size is None) == (name == "nasbench101")


@pytest.mark.parametrize("name", sorted(set(strategies.names()) - {"bayesian"}))
def test_every_strategy_searches_it(name: str) -> None:
    space = few()
    options = {"budget": 12} if "budget" in strategies.options(name) else {}
    strategy = strategies.create(name, space, seed=1, objectives=("sum",), **options)
    proposed = drive(
        strategy, 30, evaluator=lambda arch: Evaluation(Status.OK, {"sum": float(sum(arch.decisions))})
    )
    assert proposed
    assert all(map(space.contains, proposed))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="keeps no choice"):
        restrict(PARENT, [[], *FEW[1:]])
    with pytest.raises(UserError, match=r"0\.\.4, got 5"):
        restrict(PARENT, [[5], *FEW[1:]])
    with pytest.raises(UserError, match="6 decisions, got 5"):
        restrict(PARENT, FEW[1:])
    with pytest.raises(UserError, match="no fixed number"):
        restrict(spaces.get("epnas"), [])
    with pytest.raises(UserError, match="allowed here: 1, 3"):
        few().check(Architecture(PARENT.name, (0, 0, 3, 0, 1, 2)))
    macro = spaces.get("transnas_macro")
    with pytest.raises(UserError, match="no architecture of"):
        restrict(macro, [[0]] * len(macro.num_choices))


def test_a_single_architecture_has_nothing_to_mutate_to() -> None:
    alone = restrict(PARENT, [[1]] * 6)
    assert alone.size == 1
    with pytest.raises(UserError, match="only one"):
        alone.mutate(alone.sample(random.Random(0)), random.Random(0))


def test_a_restriction_of_a_restriction_is_one_of_the_whole() -> None:
    outer = [[1], [0, 1], [2, 3], [0], [1, 2], [2, 3]]
    space = restrict(few(), outer)
    assert space.parent is PARENT
    assert space.allowed == tuple(tuple(sorted(set(a) & set(b))) for a, b in zip(FEW, outer, strict=True))
    with pytest.raises(UserError, match="decision 0 of nasbench201 keeps no choice"):
        restrict(few(), [[0], *FEW[1:]])


def test_parts_of_parts_are_told_apart() -> None:
    """By all that they are parts of: trainings and searches of one do not go on with another."""
    archs = list(few().all())
    every = [range(n) for n in PARENT.num_choices]
    parts = [
        PARENT,
        few(),
        subset(PARENT, archs[:5]),
        restrict(subset(PARENT, archs[:5]), every),
        restrict(subset(PARENT, archs[1:6]), every),
        restrict(few(), [[1], *FEW[1:]]),
        subset(few(), archs[:5]),
    ]
    for facts in (identity, lambda space: UniformSampler(space).describe()):
        found = [repr(sorted(facts(space).items())) for space in parts]
        assert len(set(found)) == len(parts)
