"""Custom spaces with conditional choices, equal networks and combinations that make no network."""

from __future__ import annotations

import itertools
import pickle
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pynas
from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import InvalidArchitecture
from pynas.testing.spaces import CHECKS, Check
from pynas.trial import Status


def network(
    depth: int, kernel: int, second: int = 3, third: int = 3, norm: bool = False, num_classes: int = 10,
    in_channels: int = 3,
) -> nn.Module:  # fmt: skip
    layers: list[nn.Module] = []
    for size in (kernel, second, third)[:depth]:
        layers += [nn.Conv2d(in_channels, 4, size, padding="same"), nn.ReLU()]
        in_channels = 4
    layers += [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def second_matters(depth: int) -> bool:
    return depth > 1


CHOICES = {
    "depth": [1, 2, 3],
    "kernel": [1, 3],
    "second": [1, 3, 5],
    "third": [1, 3, 5],
    "norm": [False, True],
}
WHEN: Mapping[str, Any] = {"second": second_matters, "third": {"depth": 3, "second": [3, 5]}}


def conditional(**more: Any) -> spaces.CustomSpace:
    return spaces.custom(network, CHOICES, image_size=8, when=WHEN, **more)


def naive() -> set[tuple[tuple[str, Any], ...]]:
    """Every distinct set of arguments, from the whole product."""
    found = set()
    for values in itertools.product(*CHOICES.values()):
        given = dict(zip(CHOICES, values, strict=True))
        if given["depth"] < 2:
            del given["second"]
        if given["depth"] < 3 or given["second"] == 1:
            del given["third"]
        found.add(tuple(given.items()))
    return found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check) -> None:
    check(conditional())


def test_what_has_no_meaning_is_not_counted() -> None:
    space = conditional()
    archs = list(space.all())
    assert space.size == len(archs) == len(naive()) == 4 + 12 + 4 * (1 + 2 * 3)
    assert {tuple(space.arguments(arch).items()) for arch in archs} == naive()
    assert [space.index(arch) for arch in archs] == list(range(space.size))


def test_draws_are_uniform() -> None:
    space, rng = conditional(), random.Random(0)
    drawn = Counter(space.sample(rng) for _ in range(60 * space.size))
    assert len(drawn) == space.size
    expected = 60.0  # chi-square of 43 degrees of freedom: 99.9 % are below 80
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 80


def test_text_leaves_out_what_has_no_meaning() -> None:
    space = conditional()
    arch = space.parse("depth=1,kernel=3,norm=True")
    assert space.format(arch) == "depth=1,kernel=3,norm=True"
    assert space.arguments(arch) == {"depth": 1, "kernel": 3, "norm": True}
    assert "second" in space.format(space.parse("depth=2,kernel=3,second=5,norm=False"))
    with pytest.raises(UserError, match="expected ',norm=', found ',second=5'"):
        space.parse("depth=1,kernel=3,second=5,norm=True")
    last = spaces.custom(
        network, {"depth": [1, 2], "kernel": [3], "second": [1, 3]}, when={"second": {"depth": 2}}
    )
    with pytest.raises(UserError, match=r"the end of the text \(second has no meaning with these\)"):
        last.parse("depth=1,kernel=3,second=1")
    with pytest.raises(UserError, match="break the constraints"):
        space.check(Architecture("custom", (0, 0, 2, 0, 0)))


def test_moves_by_hand() -> None:
    space = conditional()
    arch = space.parse("depth=1,kernel=3,norm=False")
    near = {space.format(a) for a in space.neighbours(arch)}
    assert near == {
        "depth=1,kernel=1,norm=False",
        "depth=1,kernel=3,norm=True",
        *(f"depth=2,kernel=3,second={k},norm=False" for k in (1, 3, 5)),
        "depth=3,kernel=3,second=1,norm=False",
        *(f"depth=3,kernel=3,second={k},third={t},norm=False" for k in (3, 5) for t in (1, 3, 5)),
    }
    far = space.parse("depth=3,kernel=1,second=5,third=1,norm=True")
    assert space.distance(arch, far) == 3


def sorted_kernels(depth: int, kernel: int, second: int | None) -> dict[str, int]:
    if depth > 1 and second is not None and second < kernel:
        return {"kernel": second, "second": kernel}
    return {}


def two_layers(
    depth: int, kernel: int, second: int = 1, in_channels: int = 3, num_classes: int = 10
) -> nn.Module:
    """A network in which the order of two kernels does not matter."""
    kernels = sorted([kernel, second][:depth])
    layers = [nn.Conv2d(in_channels, in_channels, size, padding="same") for size in kernels]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))


def commuting(canonical: Any = sorted_kernels) -> spaces.CustomSpace:
    return spaces.custom(
        two_layers,
        {"depth": [1, 2], "kernel": [1, 3, 5], "second": [1, 3, 5]},
        image_size=8,
        when={"second": {"depth": 2}},
        canonical=canonical,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance_with_equal_networks(check: Check) -> None:
    check(commuting())


def test_equal_networks_count_once() -> None:
    space = commuting()
    assert space.size == 3 + 9
    assert len(list(space.unique())) == 3 + 6
    assert (
        space.format(space.canonical(space.parse("depth=2,kernel=5,second=1"))) == "depth=2,kernel=1,second=5"
    )
    result = pynas.search(space, "random", ["params"], budget=50)
    assert len(result.trials) == 9


@pytest.mark.parametrize(
    ("canonical", "message"),
    [
        (lambda depth: None, "expected the arguments that change.* got NoneType for depth=2"),
        (
            lambda depth: {"width": 3},
            "width=3 for depth=2,kernel=5,second=1; expected one of depth, kernel, sec",
        ),
        (lambda depth: {"kernel": 7}, "kernel=7 for depth=2,kernel=5,second=1; expected one of 1, 3, 5"),
        (lambda depth, kernel: 1 // 0, "canonical: depth=2,kernel=5,second=1: ZeroDivisionError"),
        (
            lambda kernel: {"kernel": {1: 3, 3: 5, 5: 1}[kernel]},
            "becomes depth=2,kernel=1,second=1, which itself becomes depth=2,kernel=3,second=1",
        ),
    ],
)
def test_canonical_forms_that_are_none(canonical: Any, message: str) -> None:
    space = commuting(canonical)
    with pytest.raises(UserError, match=message):
        space.canonical(space.parse("depth=2,kernel=5,second=1"))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"width": lambda depth: True}, "when: 'width' is none of the choices: depth, kernel"),
        ({"second": lambda third: True}, r"when\['second'\]: reads 'third', which is no choice before it"),
        ({"second": lambda: True}, r"when\['second'\]: reads no choice"),
        ({"second": {"depth": [4]}}, r"when\['second'\]: 4 is no value of depth, which has: 1, 2, 3"),
        ({"second": "depth > 1"}, r"when\['second'\]: expected a function of choices before it or"),
        ({"second": lambda depth: depth.size}, r"when\['second'\]: {'depth': 1} raised AttributeError"),
        (
            {"kernel": {"depth": 1}},
            r"when\['kernel'\]: where it has no meaning the factory is called without",
        ),
    ],
)
def test_conditions_that_are_none(when: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spaces.custom(network, CHOICES, when=when)


@pytest.mark.slow
def test_a_large_space_is_counted_without_listing_it() -> None:
    def factory(depth: int, **kernels: int) -> nn.Module:
        return nn.Flatten()

    choices = {"depth": range(1, 13), **{f"kernel{i}": range(10) for i in range(12)}}
    when = {f"kernel{i}": {"depth": range(i + 1, 13)} for i in range(12)}
    space = spaces.custom(factory, choices, when=when)
    assert space.size == sum(10**d for d in range(1, 13))
    rng = random.Random(0)
    for _ in range(20):
        index = rng.randrange(space.size)
        assert space.index(space.from_index(index)) == index
    wide = {f"kernel{i}": range(1, 11) for i in range(12)}
    both: dict[str, Any] = {"kernel10": lambda kernel0, kernel1, kernel2: True}
    both["kernel11"] = lambda kernel3, kernel4, kernel5: True
    with pytest.raises(UserError, match="have more than 100,000 combinations"):
        spaces.custom(factory, {"depth": [1], **wide}, when=both)
    every = {"kernel11": lambda kernel0, kernel1, kernel2, kernel3, kernel4, kernel5: True}
    with pytest.raises(UserError, match=r"when\['kernel11'\]: reads more than 100,000 combinations"):
        spaces.custom(factory, {"depth": [1], **wide}, when=every)


# ---- combinations that make no network -------------------------------------------------------------------


def grouped(width: int, groups: int, in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    if width % groups:
        raise ValueError(f"{groups} groups do not divide {width} channels")
    return nn.Sequential(
        *(nn.Conv2d(in_channels, width, 1), nn.Conv2d(width, width, 3, groups=groups)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)),
    )


GROUPED = {"width": [4, 6, 8, 9], "groups": [1, 2, 3, 4]}
VALID = {(w, g) for w in GROUPED["width"] for g in GROUPED["groups"] if w % g == 0}


def test_what_makes_no_network_is_drawn_again() -> None:
    space, rng = spaces.custom(grouped, GROUPED), random.Random(0)
    drawn = {tuple(space.arguments(space.sample(rng)).values()) for _ in range(300)}
    assert drawn == VALID
    bad = space.parse("width=9,groups=2")
    for use in (space.build, space.params, space.macs):
        with pytest.raises(
            InvalidArchitecture, match=r"width=9,groups=2 is no network: .*2 groups do not divide 9"
        ):
            use(bad)
    never = spaces.custom(grouped, {"width": [5, 7], "groups": [2, 3]})
    with pytest.raises(
        UserError, match=r"raises ValueError for 1,000 combinations drawn at random: .* is no net"
    ):
        never.sample(rng)


@pytest.mark.parametrize("strategy", ["exhaustive", "evolution", "random"])
def test_it_fails_its_trial_and_never_the_search(strategy: str) -> None:
    space = spaces.custom(grouped, GROUPED)

    def judge(architecture: Architecture) -> float:
        space.build(architecture)
        return float(sum(architecture.decisions))

    result = pynas.search(space, strategy, ["sum"], budget=16, evaluator=judge)
    status = {tuple(space.arguments(t.architecture).values()): t.evaluation for t in result.trials}
    assert all((status[pair].status is Status.OK) == (pair in VALID) for pair in status)
    if strategy == "exhaustive":
        assert len(status) == 16
        assert "is no network: the factory raised: 3 groups" in status[4, 3].message
    assert result.best is not None
    costs = pynas.search(space, strategy, ["-params"], constraints={"flops": 1e9}, budget=16)
    assert {tuple(space.arguments(t.architecture).values()) for t in costs.trials} <= VALID
    assert costs.best is not None


@pytest.mark.slow
def test_it_fails_also_as_the_first_trial() -> None:
    space = spaces.custom(grouped, {"width": [9, 8], "groups": [2, 4]})
    result = pynas.search(space, "exhaustive", ["zico"], budget=4)
    assert [t.evaluation.status.value for t in result.trials] == ["failed", "failed", "ok", "ok"]


def test_a_killed_search_draws_the_same_again(tmp_path: Path) -> None:
    def run(budget: int, **more: Any) -> list[Architecture]:
        space = spaces.custom(grouped, GROUPED)
        found = pynas.search(space, "evolution", ["-params"], budget=budget, seed=4, **more)
        return [t.architecture for t in found.trials]

    whole = run(12)
    for stop in (1, 5):
        store = tmp_path / f"{stop}.db"
        run(stop, store=store)
        assert run(12, store=store, resume=True) == whole


# ---- identity and processes ------------------------------------------------------------------------------


def test_conditions_and_equalities_belong_to_the_run(tmp_path: Path) -> None:
    def run(space: Any, **more: Any) -> None:
        pynas.search(space, "random", ["params"], budget=3, store=tmp_path / "runs.db", **more)

    run(conditional())
    run(conditional(), resume=True)
    for other, message in (
        (spaces.custom(network, CHOICES, image_size=8), r"space\.definition\.when.*: null instead of "),
        (
            spaces.custom(network, CHOICES, image_size=8, when={**WHEN, "second": {"depth": [2, 3]}}),
            r"definition\.when.*second",
        ),
        (conditional(canonical=lambda depth: {}), r"definition\.canonical\..* instead of null"),
    ):
        with pytest.raises(UserError, match=message):
            run(other, resume=True)


def test_it_reaches_other_processes() -> None:
    space = pickle.loads(pickle.dumps(commuting()))
    assert list(space.all()) == list(commuting().all())
    assert space.name == "custom"
    assert space.image_size == 8
    assert [space.canonical(a) for a in space.all()] == [commuting().canonical(a) for a in space.all()]
