"""No two searches that differ share one identity in a store, and one search keeps its own."""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pynas
from pynas import spaces, strategies
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware import TabularLatency
from pynas.spaces import SearchSpace
from pynas.spaces.identity import constructor_options, identity
from pynas.store import RunConfig, Store
from pynas.strategies import RandomSearch
from pynas.tables import Table
from pynas.testing.strategies import ToySpace
from pynas.trial import Evaluation, Status

pytestmark = pytest.mark.slow

TOY = ToySpace(length=3, choices=4)


def flat(architecture: Architecture) -> float:
    return float(sum(architecture.decisions))


def network(width: int, kernel: int = 3) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, width, kernel), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
    )


def wider(width: int, kernel: int = 3) -> Any:
    return network(2 * width, kernel)


def closing_over(value: Any) -> Callable[..., float]:
    return lambda architecture: float(len(str(value)))


class Judge:
    def __init__(self, rate: int) -> None:
        self.rate = rate

    def judge(self, architecture: Architecture) -> float:
        return float(self.rate)


CHOICES = {"width": [8, 16, 32], "kernel": [1, 3]}


class Widths(SearchSpace):
    """A user's own space, with options of all kinds, none of them kept under its name."""

    name = "widths"
    summary = "for tests"

    def __init__(self, widths: list[int], make: Callable[[int], Any] = network, label: str = "") -> None:
        self._widths, self._make = widths, make
        self.seen_in_cache = 0

    @property
    def num_choices(self) -> tuple[int, ...]:
        return (len(self._widths), 4)

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        self.seen_in_cache += 1
        return self._widths[arch.decisions[0]]

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        return 1

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> Any:
        return self._make(self._widths[arch.decisions[0]])


class Deeper(Widths):
    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        return 2 * super().params(arch)


def table(shift: float) -> Table:
    return Table("mine", "accuracy", "digits", TOY, {i: i + shift for i in range(64)})


def phone(shift: float) -> TabularLatency:
    return TabularLatency(TOY, np.arange(64) + shift, "phone")


def custom(choices: Any = CHOICES, make: Any = network, **more: Any) -> SearchSpace:
    return spaces.custom(make, choices, **more)


SETTINGS: dict[str, tuple[dict[str, Any], list[tuple[dict[str, Any], str]]]] = {
    "evaluator": (
        {"evaluator": flat},
        [
            ({"evaluator": lambda architecture: 1.0}, r"config\.evaluator\.source: \"\w{12}\" instead of"),
            ({"evaluator": closing_over(1)}, r"config\.evaluator\.closure\.value: 1 instead of null"),
            ({"evaluator": Judge(1).judge}, r"config\.evaluator\.of"),
        ],
    ),
    "closure": (
        {"evaluator": closing_over({"rate": 0.1})},
        [({"evaluator": closing_over({"rate": 0.2})}, r"closure\.value\.rate: 0\.2 instead of 0\.1")],
    ),
    "data": (
        {"evaluator": closing_over(np.zeros(9))},
        [
            (
                {"evaluator": closing_over(np.ones(9))},
                r"\"float64 \[9\] \(\w{12}\)\" instead of \"float64 \[9\]",
            )
        ],
    ),
    "choices": (
        {"space": custom()},
        [
            (
                {"space": custom({"width": [8, 16, 128], "kernel": [1, 3]})},
                r'choices\.width: "8, 16, 128" instead of "8, 16, 32"',
            ),
            ({"space": custom({"width": [16, 8, 32], "kernel": [1, 3]})}, r"choices\.width: \"16, 8, 32\""),
            ({"space": custom({"width": {"8": 8, "16": 16, "32": 33}, "kernel": [1, 3]})}, '"8, 16, 32: 33"'),
            (
                {"space": custom({"kernel": [1, 3], "width": [8, 16, 32]})},
                r'order: "kernel, width" instead of',
            ),
            ({"space": custom(make=wider)}, r"factory\.function: .*wider. instead of .*network"),
            ({"space": custom(make=functools.partial(network))}, r"factory\.partial"),
            ({"space": custom(image_size=8)}, r"image_size: 8 instead of 32"),
        ],
    ),
    "class": (
        {"space": Widths([8, 16])},
        [
            ({"space": Widths([8, 17])}, r"arguments\.widths: \[8, 17\] instead of \[8, 16\]"),
            ({"space": Widths([8, 16], make=wider)}, r"arguments\.make"),
            ({"space": Widths([8, 16], label="x")}, r'arguments\.label: "x" instead of null'),
            ({"space": Deeper([8, 16])}, r"definition\.class"),
        ],
    ),
    "subset": (
        {"space": spaces.subset(TOY, [TOY.from_index(i) for i in (1, 2, 3)])},
        [
            ({"space": spaces.subset(TOY, [TOY.from_index(i) for i in (1, 2, 4)])}, r"config\.space\.subset"),
            ({"space": spaces.subset(TOY, [TOY.from_index(i) for i in (3, 2, 1)])}, r"config\.space\.order"),
        ],
    ),
    "table": (
        {"table": table(0)},
        [({"table": table(1)}, r"config\.table\.values: \"64 values \(\w{12}\)\"")],
    ),
    "hardware": ({"hardware": [phone(1)]}, [({"hardware": [phone(2)]}, r"config\.hardware")]),
    "config": (
        {"config": {"data": Path("a"), "n": np.int64(1)}},
        [({"config": {"data": Path("a"), "n": np.int64(2)}}, r"config\.n: 2 instead of 1")],
    ),
}


def searched(path: Path, settings: dict[str, Any], **more: Any) -> Any:
    arguments = {"space": TOY, "strategy": "random", "objectives": ["acc"], "evaluator": flat, "budget": 2}
    return pynas.search(**arguments | settings | more, store=path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_resumed_by_its_like_alone(name: str, tmp_path: Path) -> None:
    settings, others = SETTINGS[name]
    path = tmp_path / "runs.db"
    if name in ("closure", "data"):
        settings = settings | {"objectives": ["-params"]}
    first = searched(path, settings)
    for other, message in others:
        with pytest.raises(UserError, match=message):
            searched(path, settings | other, resume=True)
    again = searched(path, settings, budget=3, resume=True)
    assert again.trials[:2] == first.trials
    with Store(path, read_only=True) as store:
        assert len(store.runs()) == 1


def test_one_object_may_change_while_it_is_used_and_not_between_searches(tmp_path: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.log: list[int] = []
            self.epochs = 1

        def __call__(self, architecture: Architecture) -> float:
            self.log.append(len(self.log))
            return float(self.epochs)

    judge = Counting()
    for budget in (2, 3, 5):
        found = searched(tmp_path / "runs.db", {"evaluator": judge}, budget=budget, resume=True)
        assert len(found.trials) == budget
    assert judge.log == list(range(5))
    judge.epochs = 2
    with pytest.raises(UserError, match=r"attributes\.epochs: 2 instead of 1"):
        searched(tmp_path / "runs.db", {"evaluator": judge}, budget=6, resume=True)
    fresh = Counting()
    assert len(searched(tmp_path / "runs.db", {"evaluator": fresh}, budget=6, resume=True).trials) == 6


def test_a_strategy_of_ones_own_is_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies.REGISTRY, "_objects", dict(strategies.REGISTRY._objects))

    def made(extra: int) -> type[RandomSearch]:
        class Own(RandomSearch):
            def fidelity(self, architecture: Architecture) -> float:
                return 1.0 if extra else 1

        return Own

    settings = {"strategy": "own"}
    strategies.REGISTRY.register("own", made(0))
    searched(tmp_path / "runs.db", settings)
    strategies.REGISTRY._objects["own"] = made(1)
    with pytest.raises(UserError, match=r"strategy_class\.members\.fidelity"):
        searched(tmp_path / "runs.db", settings, resume=True)
    strategies.REGISTRY._objects["own"] = made(0)
    assert len(searched(tmp_path / "runs.db", settings, budget=3, resume=True).trials) == 3


def test_an_embedding_counts_by_what_its_file_holds(tmp_path: Path) -> None:
    def of(content: bytes) -> Any:
        (tmp_path / "embedding").write_bytes(content)
        return strategies.create("bayesian", TOY, embedding=str(tmp_path / "embedding"))._depends_on()

    assert of(b"1") == of(b"1") != of(b"2")
    assert strategies.create("bayesian", TOY, embedding="encoding")._depends_on() == {}


def test_a_method_that_an_instance_has_of_its_own_counts() -> None:
    space = spaces.get("nasbench201", channels=4, num_cells=1)
    assert identity(space) == {"channels": 4, "num_cells": 1}
    vars(space)["sample"] = lambda rng: space.from_index(3)
    assert "sample" in identity(space)["definition"]["methods"]


# ---- runs of the version before ----------------------------------------------------------------------------

RUNS = {
    "zico": (
        "5974f205fb6f630fb26e5a093deada77507742750ff3e298aba8f304d057d0f2",
        3,
        '["naswot"]',
        '{"batch":256,"evaluator":{"data":"2f844e81f0a2e2ee","micro_batches":2,"num_classes":10,"precision":'
        '"float32","proxies":["naswot"],"seed":3,"threads":1},"image_size":32,"images":"digits","in_channels":3,'
        '"num_classes":10,"precision":"float32","space":{"channels":4,"num_cells":1},"strategy":{"distinct":true},'
        '"table":null}',
        [
            ([1, 4, 4, 1, 2, 4], {"flops": 618656.0, "params": 5286.0}, {"naswot": 1933.1384697197952}),
            ([3, 4, 0, 4, 0, 3], {"flops": 1454240.0, "params": 11054.0}, {"naswot": 1994.061630974218}),
        ],
    ),
    "table": (
        "773318e4d9e30a06fd8c8266a12df1a38ab9112ea116c4d6e102c9a8b81ee399",
        0,
        '["-params"]',
        '{"batch":256,"evaluator":{},"image_size":32,"images":"digits","in_channels":3,"num_classes":10,'
        '"precision":"float32","space":{"channels":16,"num_cells":5},"strategy":{"distinct":true},"table":'
        '{"dataset":"cifar10","metric":"baseline_accuracy","name":"analog-nasbench"}}',
        [
            (
                [3, 3, 0, 2, 4, 3],
                {"accuracy": 93.21520000000002, "flops": 117883520.0, "params": 830426.0},
                {"-params": -830426.0},
            ),
            (
                [3, 2, 3, 2, 4, 1],
                {"accuracy": 92.454, "flops": 86426240.0, "params": 615386.0},
                {"-params": -615386.0},
            ),
        ],
    ),
}


def stored_before(path: Path, name: str) -> None:
    """A store as the version before wrote it, killed before it wrote the strategy's state."""
    key, seed, objectives, config, trials = RUNS[name]
    Store(path).close()
    with sqlite3.connect(path) as connection:
        run = (1, key, "nasbench201", "random", seed, objectives, "{}", config, "{}")
        connection.execute(f"INSERT INTO runs VALUES ({','.join('?' * 9)})", run)
        for number, (decisions, metrics, scores) in enumerate(trials):
            architecture = json.dumps({"space": "nasbench201", "decisions": decisions})
            record = {"status": "ok", "scores": scores, "metrics": metrics, "message": "", "seconds": 0.1}
            row = (1, number, architecture, json.dumps(record))
            connection.execute("INSERT INTO trials VALUES (?, ?, ?, ?)", row)


def test_a_run_of_a_published_space_and_the_built_in_evaluator_goes_on(
    one_thread: None, tmp_path: Path
) -> None:
    stored_before(tmp_path / "runs.db", "zico")
    space = spaces.get("nasbench201", channels=4, num_cells=1)
    common: dict[str, Any] = {"strategy": "random", "objectives": ["naswot"], "seed": 3, "budget": 3}
    result = pynas.search(space, **common, store=tmp_path / "runs.db", resume=True)
    assert (result.run.id, len(result.trials)) == (1, 3)
    whole = pynas.search(space, **common)
    assert [t.architecture for t in result.trials] == [t.architecture for t in whole.trials]


def test_a_run_with_a_table_goes_on_where_the_table_has_its_accuracies(tmp_path: Path) -> None:
    space = spaces.get("nasbench201")
    accuracies = {Architecture("nasbench201", tuple(d)): m["accuracy"] for d, m, _ in RUNS["table"][4]}
    known = Table(
        "analog-nasbench",
        "baseline_accuracy",
        "cifar10",
        space,
        {space.index(a): v for a, v in accuracies.items()},
    )
    common: dict[str, Any] = {"strategy": "random", "objectives": ["-params"], "budget": 3, "resume": True}
    for store in ("same.db", "other.db"):
        stored_before(tmp_path / store, "table")
    result = pynas.search(space, **common, store=tmp_path / "same.db", table=known)
    assert (result.run.id, len(result.trials)) == (1, 3)
    other = replace(known, values={place: value + 0.5 for place, value in known.values.items()})
    with pytest.raises(UserError, match=r"resume: accuracy of trial 0 is 93\.2\d+ in the store and 93\.7"):
        pynas.search(space, **common, store=tmp_path / "other.db", table=other)


def declared(architecture: Architecture) -> float:
    return flat(architecture)


declared.config = {"mine": 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("space", "judge", "what"),
    [
        (custom(), declared, "the space"),
        (TOY, declared, "the space"),
        (spaces.get("nats_size"), flat, "the evaluator, which has no attribute 'config'"),
        (custom(), flat, "the space and the evaluator, which has no attribute 'config'"),
    ],
)
def test_a_run_whose_identity_was_not_recorded_is_refused(
    space: SearchSpace, judge: Any, what: str, tmp_path: Path
) -> None:
    config = {
        "space": constructor_options(space),
        "strategy": strategies.options("random"),
        "evaluator": getattr(judge, "config", {}),
        "table": None,
        "num_classes": 10,
        "image_size": 32,
        "in_channels": 3,
    }
    settings = {"space": space, "evaluator": judge}
    with Store(tmp_path / "runs.db") as store:
        store.start(RunConfig(space.name, "random", 0, ("acc",), {}, config), {})
    with pytest.raises(
        UserError, match=rf"run 1 was stored by a version .* the identity of {what}, so nothing"
    ):
        searched(tmp_path / "runs.db", settings, resume=True)
    assert len(searched(tmp_path / "runs.db", settings, seed=1).trials) == 2  # a new run is welcome


SEARCH = textwrap.dedent("""
    import sys, pynas

    SHIFT = {shift}

    def judge(architecture):
        return float(sum(architecture.decisions)) + SHIFT

    if __name__ == "__main__":
        result = pynas.search(
            pynas.testing.strategies.ToySpace(), "evolution", ["acc"], evaluator=judge,
            budget=int(sys.argv[2]), store=sys.argv[1], resume=True,
        )
        print(result.run.id, len(result.trials))
""")


def test_a_script_resumes_its_own_run(tmp_path: Path) -> None:
    def run(text: str, budget: int, seed: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(
            text.replace("sys, pynas", "sys, pynas, pynas.testing.strategies")
        )
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "runs.db"), str(budget)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert run(SEARCH.format(shift=0.0), 4, "1").stdout == "1 4\n"
    assert run("# shifted\n" + SEARCH.format(shift=0.0), 6, "2").stdout == "1 6\n"
    refused = run(SEARCH.format(shift=1.0), 8, "1")
    assert refused.returncode == 1
    assert "config.evaluator.uses.SHIFT: 1.0 instead of 0.0" in refused.stderr


def test_what_failed_fails_the_same(tmp_path: Path) -> None:
    def broken(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, {"acc": object()})  # type: ignore[dict-item]

    searched(tmp_path / "runs.db", {"evaluator": broken})
    again = searched(tmp_path / "runs.db", {"evaluator": broken}, budget=3, resume=True)
    assert [t.evaluation.status for t in again.trials] == [Status.FAILED] * 3
