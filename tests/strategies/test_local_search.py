"""Local search against the walk written out by hand."""

from __future__ import annotations

import random

import pytest

from pynas import strategies
from pynas.architecture import Architecture
from pynas.testing.strategies import ToySpace, toy_score
from pynas.trial import Evaluation, Status, Trial


class Ordered(ToySpace):
    """No two architectures are the same."""

    def canonical(self, arch: Architecture) -> Architecture:
        return arch


def trial(number: int, architecture: Architecture, *scores: float) -> Trial:
    return Trial(
        number, architecture, Evaluation(Status.OK, scores={str(i): s for i, s in enumerate(scores)})
    )


@pytest.mark.parametrize("whole", [False, True])
def test_walks_uphill_by_neighbours_until_there_is_no_better_one(whole: bool) -> None:
    space = Ordered()
    search = strategies.create("local_search", space, seed=5, whole_neighbourhood=whole)
    place = search.ask()
    search.tell(trial(0, place, toy_score(place)))
    tried = {place}
    best = place
    for number in range(1, 400):
        proposed = search.ask()
        if proposed not in set(space.neighbours(place)):
            # Everything around has been tried: by the rule of the variant the walk has moved, or it is over.
            if whole and best != place:
                assert set(space.neighbours(place)) <= tried
                place = best
                assert proposed in set(space.neighbours(place))
            else:
                break
        tried.add(proposed)
        search.tell(trial(number, proposed, toy_score(proposed)))
        if toy_score(proposed) > toy_score(best):
            best = proposed
            if not whole:
                place = best
    assert all(toy_score(neighbour) <= toy_score(place) for neighbour in space.neighbours(place))
    assert number > 20


def test_several_objectives_move_by_majority() -> None:
    space, rng = Ordered(), random.Random(0)
    search = strategies.create("local_search", space, seed=0, objectives=["0", "1", "2"])
    start = space.sample(rng)
    search.tell(trial(0, start, 1.0, 1.0, 1.0))
    worse = search.ask()
    search.tell(trial(1, worse, 9.0, 0.5, 0.5))
    following = search.ask()
    assert following in set(space.neighbours(start))
    search.tell(trial(2, following, 1.5, 1.5, 0.0))
    assert search.ask() in set(space.neighbours(following))
