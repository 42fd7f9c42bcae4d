"""What makes a run this run: the configuration that a store finds it by again.

Two runs that could give different trials have different configurations: the space, the evaluator, the table
and the models of hardware count by what they hold and do, not by their names alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pynas import strategies
from pynas._errors import UserError
from pynas._identity.described import Described
from pynas._identity.description import brief, describe
from pynas._identity.plain import plain
from pynas._identity.source import is_installed, shortened
from pynas.spaces.identity import DEFINITION, constructor_options, identity
from pynas.store import RunConfig, Store
from pynas.strategies import SearchStrategy
from pynas.trial import Evaluator, members_of

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.tables import Table

# What versions before did not record of parts that they did record; a stored run without it can be checked
# by its trials' costs and accuracies.
_ADDED = {"table": ("values", "rows", "code"), "hardware": ("operators",)}


@dataclass(frozen=True)
class Identity:
    """A run's configuration, and the one under which the version before stored the same run.

    Attributes:
        config: The configuration.
        former: What it was called before; equal where nothing was missing.
        unrecorded: What decides about the trials and was not part of that, in words.
        described: What a search may change by using it.
    """

    config: RunConfig
    former: RunConfig
    unrecorded: tuple[str, ...]
    described: tuple[Described, ...] = ()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a search runs: what it changes of its evaluator is no difference to the next one."""
        try:
            yield
        finally:
            for each in self.described:
                each.searched()

    def is_in(self, store: Store) -> bool:
        """Whether ``store`` has this run, under its present or its former name."""
        keys = {run.config.key() for run in store.runs()}
        return self.config.key() in keys or self.former.key() in keys

    def in_store(self, store: Store, resume: bool) -> RunConfig:
        """The configuration under which ``store`` has this run, or should have it.

        Raises:
            UserError: It may have the run, of a version that did not record enough to know.
        """
        if not resume or self.former.key() == self.config.key():
            return self.config
        runs = {run.config.key(): run for run in store.runs()}
        found = runs.get(self.former.key())
        if found is None or self.config.key() in runs:
            return self.config
        if self.unrecorded:
            raise UserError(
                f"{store.location}: run {found.id} was stored by a version of pynas that did not record the "
                f"identity of {' and '.join(self.unrecorded)}, so nothing says that it is this search. Start "
                "a run with another store or seed"
            )
        return self.former


def identity_of(
    space: SearchSpace,
    strategy: str,
    seed: int,
    objectives: Sequence[str],
    constraints: Mapping[str, float],
    *,
    searcher: SearchStrategy,
    options: Mapping[str, Any],
    evaluator: Evaluator | None,
    table: Table | None,
    hardware: Sequence[HardwareModel],
    task: Mapping[str, int],
    extra: Mapping[str, Any],
) -> Identity:
    """The identity of a run; ``evaluator`` None where every objective is a cost.

    ``strategy`` is its name, ``options`` are all that it has, with their defaults.

    Raises:
        UserError: A part of a configuration that is no JSON and cannot be made so.
    """
    depends = searcher._depends_on()
    declared = {} if evaluator is None else declared_config(evaluator)
    described = [Described(space, lambda space: plain(identity(space), "space", of_any=True))]
    if not declared and evaluator is not None:
        described.append(Described(evaluator, describe_evaluator))
    config: dict[str, Any] = {
        "space": described[0].description,
        "strategy": plain({**options, **depends}, "strategy_options", of_any=True),
        "evaluator": described[1].description if described[1:] else declared,
        "table": None if table is None else table_facts(table),
        **task,
        **plain(extra, "config"),
    }
    if hardware:
        config["hardware"] = [plain(model.describe(), f"hardware {model.name}") for model in hardware]
    if strategies.REGISTRY.loaded().get(strategy) is not type(searcher) or not is_installed(
        type(searcher).__module__
    ):
        config["strategy_class"] = describe(type(searcher))
    full = RunConfig(space.name, strategy, seed, tuple(objectives), dict(constraints), config)
    former, unrecorded = _former(full, space, len(described) > 1, depends)
    return Identity(full, former, unrecorded, tuple(described))


def _former(
    full: RunConfig, space: SearchSpace, evaluator_is_new: bool, depends: Mapping[str, Any]
) -> tuple[RunConfig, tuple[str, ...]]:
    config = {name: value for name, value in full.config.items() if name != "strategy_class"}
    config["space"] = constructor_options(space)
    config["strategy"] = {k: v for k, v in config["strategy"].items() if k not in depends}
    if config["table"] is not None:
        config["table"] = _without(config["table"], _ADDED["table"])
    if "hardware" in config:
        config["hardware"] = [_without(model, _ADDED["hardware"]) for model in config["hardware"]]
    unrecorded = ["the space"] if DEFINITION in full.config["space"] else []
    unrecorded += ["the strategy"] if "strategy_class" in full.config else []
    if evaluator_is_new:
        config["evaluator"] = {}
        unrecorded.append("the evaluator, which has no attribute 'config'")
    return replace(full, config=config), tuple(unrecorded)


def _without(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def declared_config(evaluator: Evaluator) -> dict[str, Any]:
    """What an evaluator says of itself: its mapping ``config``; empty where it has none."""
    config = members_of(evaluator).config
    if not isinstance(config, Mapping):
        return {}
    declared: dict[str, Any] = plain(config, "evaluator: config")
    return declared


def describe_evaluator(evaluator: Evaluator) -> dict[str, Any]:
    """What an evaluator is that says nothing of itself: its code, and what it holds."""
    found = describe(evaluator)
    return found if isinstance(found, dict) else {"evaluator": found}


def table_facts(table: Table) -> dict[str, Any]:
    """Name, metric and data set of a table, and a digest of all its values."""
    facts: dict[str, Any] = {
        name: plain(getattr(table, name, None), f"table: {name}", of_any=True)
        for name in ("name", "metric", "dataset")
    }
    values = getattr(table, "values", None)
    if is_installed(type(table).__module__) and isinstance(values, Mapping):
        rows = getattr(table, "rows", None)
        return facts | {"values": _values_digest(values)} | ({} if rows is None else {"rows": brief(rows)})
    return facts | {"code": brief(table)}


def _values_digest(values: Mapping[int, float]) -> str:
    keys = np.fromiter(values, dtype=np.int64, count=len(values))
    numbers = np.fromiter(values.values(), dtype=np.float64, count=len(values))
    order = np.argsort(keys)
    return f"{len(keys):,} values ({shortened(keys[order].tobytes() + numbers[order].tobytes())})"
