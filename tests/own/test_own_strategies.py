"""A strategy of one's own in a search: a class, an instance, options, and what tells its runs apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pynas
from pynas import strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies import RandomSearch
from pynas.testing.strategies import ToySpace
from pynas.trial import Trial

TOY = ToySpace(length=3, choices=4)


def flat(architecture: Architecture) -> float:
    return float(sum(architecture.decisions))


class Stepping(RandomSearch):
    """Random, and remembers what it was told."""

    def __init__(
        self, space: Any, *, seed: int = 0, feasible: Any = None, objectives: Any = (), step: int = 1
    ):
        super().__init__(space, seed=seed, feasible=feasible, objectives=objectives)
        self.step = step
        self.told: list[int] = []

    def tell(self, trial: Trial) -> None:
        super().tell(trial)
        self.told.append(trial.number)


class Awkward(RandomSearch):
    def __init__(self, space: Any, seed: int = 0) -> None:
        super().__init__(space, seed=seed)


def trials(strategy: Any, **more: Any) -> list[Architecture]:
    options: dict[str, Any] = {"objectives": ["sum"], "budget": 12, "evaluator": flat, **more}
    return [t.architecture for t in pynas.search(TOY, strategy, **options).trials]


def test_class_instance_and_name_search_alike() -> None:
    mine = Stepping(TOY, seed=3)
    by_instance = trials(mine)
    assert by_instance == trials(Stepping, seed=3) == trials("random", seed=3)
    assert mine.told == []  # the search has a copy
    assert trials(mine) == by_instance


def test_constraints_and_objectives_reach_an_instance() -> None:
    limit = {"params": 60.0}
    assert trials(Stepping(TOY, seed=1), constraints=limit) == trials("random", seed=1, constraints=limit)
    even = Stepping(TOY, seed=1, feasible=lambda arch: sum(arch.decisions) % 2 == 0)
    found = trials(even, constraints=limit)
    assert found
    assert all(sum(a.decisions) % 2 == 0 and TOY.params(a) <= 60 for a in found)


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (Stepping(TOY), {"strategy_options": {"step": 2}}, "is an instance, made with its options"),
        (Stepping(ToySpace(length=2, choices=3), objectives=("x",)), {}, "made for the objectives x"),
        (Stepping(pynas.spaces.get("nasbench201")), {}, "was made for nasbench201, the search is of"),
        (Stepping, {"strategy_options": {"stop": 2}}, r"unknown option 'stop'.*takes: step \(default 1\)"),
        (Awkward, {}, r"got an unexpected keyword argument 'feasible'; a search makes it by Awkward\(space"),
        (int, {}, "expected a class of pynas.strategies.SearchStrategy, got int"),
        (3, {}, "expected a class of pynas.strategies.SearchStrategy, got int"),
        ("no_such:Thing", {}, "there is no module 'no_such'"),
        ("evolutoin", {}, "Did you mean 'evolution'"),
    ],
)
def test_what_is_no_strategy_here(strategy: Any, more: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trials(strategy, **more)


def test_an_instance_of_one_search_only() -> None:
    used = Stepping(TOY)
    used.ask()
    with pytest.raises(UserError, match="has proposed or been told 1 architecture already"):
        trials(used)
    holding = Stepping(TOY)
    holding.lock = open(__file__)  # type: ignore[attr-defined]  # noqa: SIM115
    try:
        with pytest.raises(UserError, match=r"cannot be copied .* give the class"):
            trials(holding)
    finally:
        holding.lock.close()  # type: ignore[attr-defined]


def test_a_store_knows_an_instance_again(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    whole = trials(Stepping(TOY, seed=5, step=2))
    first = trials(Stepping(TOY, seed=5, step=2), store=store, budget=5)
    assert first == whole[:5]
    assert trials(Stepping(TOY, seed=5, step=2), store=store, resume=True) == whole
    with pytest.raises(UserError, match=r"strategy\.step: 3 instead of 2"):
        trials(Stepping(TOY, seed=5, step=3), store=store, resume=True)
    with pytest.raises(UserError, match=r"strategy\._rng.* instead of "):
        trials(Stepping(TOY, seed=6, step=2), store=store, resume=True)
    with pytest.raises(UserError, match="instead of"):
        trials(Stepping, seed=5, strategy_options={"step": 2}, store=store, resume=True)


def test_a_class_is_its_name_in_the_registry() -> None:
    assert strategies.name_of(RandomSearch) == "random"
    assert strategies.name_of(Stepping(TOY)) == "Stepping"
    assert strategies.options(RandomSearch) == strategies.options("random")
