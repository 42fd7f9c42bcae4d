"""A part of a space is a space."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import pynas
from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import NASBench201, SearchSpace, subset
from pynas.testing.spaces import CHECKS, Check
from pynas.testing.strategies import drive
from pynas.trial import Evaluation, Status

pytestmark = pytest.mark.slow

PARENT = NASBench201(channels=4, num_cells=1)


def pockets() -> SearchSpace:
    """Two seeds with all their neighbours, far from each other."""
    rng = random.Random(1)
    seeds = [PARENT.sample(rng) for _ in range(2)]
    return subset(PARENT, [*seeds, *(n for seed in seeds for n in PARENT.neighbours(seed))])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, one_thread: None) -> None:
    check(pockets())


def test_members_are_the_parents() -> None:
    space = pockets()
    assert space.name == PARENT.name
    for arch in space.all():
        assert space.format(arch) == PARENT.format(arch)
        assert space.params(arch) == PARENT.params(arch)
        assert space.graph(arch) == PARENT.graph(arch)
        assert space.parse(PARENT.format(arch)) == arch


def test_what_is_no_member_is_refused() -> None:
    space = pockets()
    stranger = next(arch for arch in PARENT.all() if arch not in set(space.all()))
    for method in (space.check, space.format, space.params, space.build, space.canonical, space.index):
        with pytest.raises(UserError, match="is not among the"):
            method(stranger)
    with pytest.raises(UserError, match="is not among the"):
        space.parse(PARENT.format(stranger))
    with pytest.raises(UserError, match="at least one"):
        subset(PARENT, [])
    with pytest.raises(UserError, match="space"):
        subset(PARENT, [spaces.get("nats_size").sample(random.Random(0))])


def test_an_island_can_be_left() -> None:
    a, *rest = (PARENT.from_index(i) for i in (3, 77, 4000))
    space = subset(PARENT, [a, *rest])
    least = min(PARENT.distance(a, other) for other in rest)
    assert least > 1
    assert not list(space.neighbours(a))
    assert PARENT.distance(a, space.mutate(a, random.Random(0))) == least
    with pytest.raises(UserError, match="nothing to mutate"):
        subset(PARENT, [a]).mutate(a, random.Random(0))


@pytest.mark.parametrize("name", ["random", "evolution", "local_search", "exhaustive"])
def test_every_strategy_searches_it(name: str) -> None:
    space = pockets()
    forms = {space.canonical(arch) for arch in space.all()}
    found = drive(strategies.create(name, space, seed=0), 200)
    assert {space.canonical(arch) for arch in found} == forms
    assert len(found) == len(forms)


def test_the_digest_is_of_the_members() -> None:
    space = pockets()
    assert isinstance(space, spaces.Subset)
    shuffled = list(space.members)
    random.Random(0).shuffle(shuffled)
    assert subset(PARENT, shuffled).digest == space.digest
    assert subset(PARENT, shuffled[1:]).digest != space.digest


def test_a_stored_search_is_of_this_subset_only(tmp_path: Path) -> None:
    space = pockets()
    assert isinstance(space, spaces.Subset)
    evaluator = _Counts()
    options = {"strategy": "random", "budget": 5, "store": tmp_path / "runs.db", "evaluator": evaluator}
    first = pynas.search(space, objectives=["first"], **options)
    assert len(pynas.search(space, objectives=["first"], resume=True, **options).trials) == len(first.trials)
    other = subset(PARENT, space.members[1:])
    with pytest.raises(UserError, match="subset"):
        pynas.search(other, objectives=["first"], resume=True, **options)


class _Counts:
    """Scores an architecture by its first decision."""

    def __call__(self, architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, scores={"first": float(architecture.decisions[0])})


def test_the_order_of_edges_in_a_text_makes_no_other_subset() -> None:
    space = spaces.get("darts_cnn")
    arch = space.parse("DARTS_V2")
    assert arch.notation
    assert subset(space, [arch]).facts == subset(space, [arch.plain]).facts
    assert not subset(space, [arch]).members[0].notation
