"""The searches of Single Path One-Shot and of ZiCo do the steps that their authors' codes do."""

from __future__ import annotations

import pytest

from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies import SearchStrategy
from pynas.testing.strategies import ToySpace, toy_score
from pynas.trial import Evaluation, Status, Trial


class Ordered(ToySpace):
    """No two architectures are the same; 4^8 of them."""

    def __init__(self) -> None:
        super().__init__(length=8)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch


SPACE = Ordered()


def run(search: SearchStrategy, count: int) -> list[Architecture]:
    found = []
    for number in range(count):
        found.append(search.ask())
        evaluation = Evaluation(Status.OK, scores={"toy": toy_score(found[-1])})
        search.tell(Trial(number, found[-1], evaluation))
    return found


def best(found: list[Architecture], count: int) -> list[Architecture]:
    return sorted(found, key=lambda arch: -toy_score(arch))[:count]


def test_spos_breeds_from_the_best_of_all_generations() -> None:
    search = strategies.create(
        "spos_evolution",
        SPACE,
        population_size=40,
        top=6,
        mutations=15,
        crossovers=15,
        mutation_probability=0.1,
    )
    found = run(search, 160)
    assert len(set(found)) == 160
    for start in (40, 80, 120):
        parents = best(found[:start], 6)
        mutants, crossed = found[start : start + 15], found[start + 15 : start + 30]
        changed = [min(SPACE.distance(mutant, parent) for parent in parents) for mutant in mutants]
        assert sum(changed) / 15 < 2, "a tenth of eight decisions, at least one, is 1.2 on average"
        inherited = sum(
            any(
                all(
                    c in (a, b) for c, a, b in zip(child.decisions, one.decisions, two.decisions, strict=True)
                )
                for one in parents
                for two in parents
            )
            for child in crossed
        )
        # Where ten crossovers of close parents gave nothing new, a random architecture takes the place.
        assert inherited >= 8
    scores = [toy_score(arch) for arch in found]
    assert sum(scores[120:150]) > sum(scores[:30])


def test_zico_breeds_from_the_initial_and_then_from_the_pool_without_its_worst() -> None:
    initial = SPACE.from_index(12345)
    search = strategies.create(
        "zico_evolution", SPACE, pool_size=20, first=10, mutations=2, initial=SPACE.format(initial), seed=3
    )
    found = run(search, 300)
    assert all(SPACE.distance(initial, arch) == 1 for arch in found[:11])
    for number in range(11, 300):
        pool = best(found[:number], 20)
        assert min(SPACE.distance(member, found[number]) for member in pool) <= 2
    assert toy_score(best(found, 1)[0]) > 2 * toy_score(initial)


def test_zico_starts_from_a_random_architecture_if_none_is_given() -> None:
    search = strategies.create("zico_evolution", SPACE, seed=1)
    first, *rest = run(search, 9)
    assert all(SPACE.distance(first, arch) == 1 for arch in rest)


def test_open_ended_spaces_too() -> None:
    space = spaces.get("epnas")
    for name in ("spos_evolution", "zico_evolution"):
        search = strategies.create(name, space, seed=0)
        for number in range(70):
            arch = search.ask()
            space.check(arch)
            evaluation = Evaluation(Status.OK, scores={"size": float(len(arch.decisions))})
            search.tell(Trial(number, arch, evaluation))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spos_evolution", {"top": 0}, "top: expected at least 1"),
        ("spos_evolution", {"mutations": 40}, "at most population_size=50"),
        ("spos_evolution", {"mutation_probability": 0.0}, "mutation_probability"),
        ("zico_evolution", {"pool_size": 0}, "pool_size: expected at least 1"),
        ("zico_evolution", {"procedure": "mine"}, "procedure: expected one of published, moves, got 'mine'"),
        ("zico_evolution", {"initial": "9-9"}, "not a toy architecture"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        strategies.create(name, SPACE, **options)
