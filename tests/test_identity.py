"""Objects described: what they hold and do, the same in every process."""

from __future__ import annotations

import enum
import functools
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pynas._identity.description import describe
from pynas._identity.naming import to_text


def closing_over(value: Any) -> Callable[..., Any]:
    def inner(architecture: Any, factor: int = 1, *, offset: int = 0) -> Any:
        return value, factor, offset, architecture

    return inner


def method_closing_over(value: Any) -> Any:
    class Judge:
        def __call__(self, architecture: Any) -> Any:
            return value

    return Judge()


class Settings:
    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)

    def judge(self, architecture: Any) -> Any:
        return vars(self)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class Options:
    rate: float
    sizes: tuple[int, ...] = ()


class Mine(list[int]):
    """A container of one's own."""


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def with_default(value: Any) -> Callable[..., Any]:
    function = closing_over(0)
    function.__defaults__ = (value,)  # type: ignore[attr-defined]
    return function


def with_keyword(value: Any) -> Callable[..., Any]:
    function = closing_over(0)
    function.__kwdefaults__ = {"offset": value}  # type: ignore[attr-defined]
    return function


def with_attribute(value: Any) -> Callable[..., Any]:
    function = closing_over(0)
    function.value = value  # type: ignore[attr-defined]
    return function


def class_with(value: Any) -> type:
    return type("Judge", (), {"value": value, "__module__": __name__})


def of_property(value: Any) -> type:
    return type("Judge", (), {"value": property(closing_over(value)), "__module__": __name__})


def tensor(value: Any) -> Any:
    import torch

    return torch.tensor([0.5, float(value)], dtype=torch.bfloat16)


def module(value: Any) -> Any:
    from torch import nn

    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, float(value))
    nn.init.zeros_(network.bias)
    return nn.Sequential(network, nn.ReLU())


def itself(value: Any) -> Any:
    inner: list[Any] = [value]
    inner.append(inner)
    return inner


def through_function(value: Any) -> Callable[..., Any]:
    helper = closing_over(value)
    return lambda architecture: helper(architecture)


HOLDERS: list[Callable[[Any], Any]] = [
    closing_over,
    method_closing_over,
    with_default,
    with_keyword,
    with_attribute,
    class_with,
    of_property,
    tensor,
    module,
    itself,
    through_function,
    lambda value: functools.partial(closing_over(0), factor=value),
    lambda value: functools.partial(closing_over(0), value),
    lambda value: functools.lru_cache(closing_over(value)),
    lambda value: Settings(value=value),
    lambda value: Settings(value=value).judge,
    lambda value: Settings(_private=[{"deep": (1, value)}]),
    lambda value: Slotted(value),
    lambda value: Options(0.1, (1, value)),
    lambda value: closing_over({"a": {1, value + 10}}),
    lambda value: closing_over({value: "key"}),
    lambda value: np.array([1, value], dtype=np.int8),
    lambda value: np.array([[value], [2]], dtype=np.int8).T,
    lambda value: np.array([None, value], dtype=object),
    lambda value: [*range(1000), value],
    lambda value: {i: float(i) for i in range(1000)} | {5: value},
    lambda value: deque([1, value]),
    lambda value: random.Random(value),
    lambda value: np.random.default_rng(value),
    lambda value: Mine([value]),
    lambda value: [Colour.RED, Colour.BLUE][value],
    lambda value: Path("data") / str(value),
    lambda value: "x" * 500 + str(value),
    lambda value: b"\0" * 500 + bytes([value]),
    lambda value: range(value),
]


@pytest.mark.parametrize("hold", HOLDERS, ids=range(len(HOLDERS)))
def test_what_an_object_holds_tells_it_from_another(hold: Callable[[Any], Any]) -> None:
    once, again, other = (to_text(describe(hold(value))) for value in (0, 0, 1))
    assert once == again
    assert once != other
    assert " at 0x" not in once
    assert len(once) < 4000


def test_code_on_one_line_and_values_that_look_alike() -> None:
    pairs: list[tuple[Any, Any]] = [
        (lambda a: a + 1, lambda a: a + 2),
        (lambda a: np.sin, lambda a: np.cos),
        (4, "4"),
        ([1, 2], [2, 1]),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros((2, 2)), np.zeros(4)),
        (np.sin, np.cos),
        (0.0, -0.0),
        (Options(1.0), Settings(rate=1.0, sizes=())),
        (functools.partial(max, 1), functools.partial(min, 1)),
        ({1: 2}, {"1": 2}),
        (Mine([1]), [1]),
        ([].append, {}.get),
    ]
    for one, other in pairs:
        assert to_text(describe(one)) != to_text(describe(other))
    assert describe({3, 1, 2}) == describe({2, 3, 1})
    assert describe({"a": 1, "b": 2}) == describe({"b": 2, "a": 1})


def test_what_cannot_be_looked_into_is_its_type(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert describe(Settings(file=file))["attributes"]["file"] == {
            "object": "_io.TextIOWrapper",
            "attributes": {"mode": "w"},
        }
    assert "generator" in to_text(describe(i for i in range(3)))


SCRIPT = '''
import functools, sys
from dataclasses import dataclass, field

RATES = {{"slow", "fast", "medium"}}


def helper(x):
    return x * {factor}


@dataclass
class Base:
    names: frozenset = frozenset({{"alpha", "beta", "gamma"}})
    more: list = field(default_factory=list)

    def run(self, architecture):
        return helper(1), RATES


class Judge(Base):
    def __call__(self, architecture):
        """Judge {{}}."""
        inner = lambda x: x in {{"a", "b", "c"}}
        return self.run(architecture), [inner(y) for y in "abc"]
'''
SHOW = """
from pynas._identity.description import describe
from pynas._identity.naming import to_text
if __name__ == "__main__":
    print(to_text(describe(Judge())))
    print(to_text(describe(functools.partial(Judge().run, 3))))
    print(to_text(describe(lambda a: Judge)))
"""


def shown(path: Path, text: str, seed: str, *, as_text: bool = False) -> str:
    path.write_text(text + SHOW)
    command = [sys.executable, "-c", text + SHOW] if as_text else [sys.executable, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
    )
    assert len(done.stdout.splitlines()) == 3
    return done.stdout


@pytest.mark.slow
def test_descriptions_are_the_same_in_every_process_and_on_every_line(tmp_path: Path) -> None:
    script = SCRIPT.format(factor=2)
    first = shown(tmp_path / "a.py", script, "1")
    moved = "# a comment\n\n\n" + script.replace("class Judge", "# another\n\n\nclass Judge")
    assert shown(tmp_path / "b.py", moved, "2") == first
    changed = shown(tmp_path / "c.py", SCRIPT.format(factor=3), "1")
    for before, after in zip(first.splitlines(), changed.splitlines(), strict=True):
        assert before != after  # the helper counts wherever it is used
    as_text = shown(tmp_path / "d.py", script, "3", as_text=True)  # of which there is no source
    assert as_text == shown(tmp_path / "e.py", moved, "4", as_text=True)


def test_a_file_that_changes_under_a_running_process_is_not_taken_for_its_code(tmp_path: Path) -> None:
    path = tmp_path / "judge_of_a_test.py"
    path.write_text("def judge(architecture):\n    return 1\n")
    namespace: dict[str, Any] = {"__name__": "judge_of_a_test"}
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), namespace)
    before = describe(namespace["judge"])
    path.write_text("def judge(architecture):\n    return 2\n")
    os.utime(path, (1, 1))
    stale = describe(namespace["judge"])
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), namespace)
    fresh = describe(namespace["judge"])
    assert len({to_text(each) for each in (before, stale, fresh)}) == 3


def test_what_moved_keeps_its_first_name() -> None:
    import pynas
    from pynas._identity.naming import name_of
    from pynas.hardware.costs import Costs
    from pynas.proxies.ensembles import vote

    named = {
        name_of(each) for each in (pynas.search, vote, Costs, pynas.tables.load, pynas.spaces.NASBench201)
    }
    assert named == {
        "pynas.run.search",
        "pynas._ensembles.vote",
        "pynas._costs.Costs",
        "pynas.benchmarks.load",
        "pynas.spaces.nasbench201.NASBench201",
    }
