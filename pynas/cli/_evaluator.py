"""Shared by ``search`` and ``rank``: check names early, load data once, make the evaluator."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from pynas import tables
from pynas._errors import UserError
from pynas.cli import specs
from pynas.hardware.costs import ALWAYS, PROFILED, Costs
from pynas.hardware.model import UNITS
from pynas.run.loop import default_evaluator, task_of
from pynas.run.objectives import checked, split

if TYPE_CHECKING:
    from pynas.architecture import Architecture
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.tables import Table
    from pynas.trial import Evaluator, Trial


@dataclass(frozen=True)
class Setting:
    """Everything that an evaluation depends on besides the architecture."""

    space: SearchSpace
    evaluator: Evaluator
    table: Table | None
    config: Mapping[str, Any]  # identifies the run in a store


def proxies_of(objectives: Sequence[str], models: Sequence[HardwareModel]) -> list[str]:
    """The objectives that are not costs: a proxy has to score them."""
    named = [split(text)[1] for text in checked(objectives)]
    counts = Counter(model.quantity for model in models)
    single = (quantity for quantity, count in counts.items() if count == 1)
    known = {*ALWAYS, *PROFILED, *single, *(model.name for model in models)}
    unknown = [name for name in named if name not in known and name.partition(":")[0] in UNITS]
    if unknown:
        which = "of which device" if unknown[0] in UNITS and models else "no device is known"
        devices = ", ".join(model.name for model in models)
        hint = f"known: {devices}" if models else "give its latencies: --latency table:FILE or hw:FILE:DEVICE"
        raise UserError(f"objective {unknown[0]!r}: {which}; {hint}")
    return [name for name in named if name not in known]


def prepare(
    space: str,
    proxies: Sequence[str],
    *,
    data: specs.DataOptions,
    table: Table | str | None,
    metric: str | None = None,
    dataset: str | None = None,
    precision: str,
    threads: int | None,
    workers: int = 1,
) -> Setting:
    """Check all names before anything slow happens, then load tables and images.

    Without ``threads`` the workers share the threads of this process equally.
    """
    import torch

    from pynas import proxies as proxy_registry
    from pynas.evaluate import ProxyEvaluator

    chosen = specs.open_space(space)
    for name in proxies:
        proxy_registry.get(name)
    if threads is None and workers > 1:
        threads = max(1, torch.get_num_threads() // workers)
    if threads is not None:
        torch.set_num_threads(threads)
    if table is None and (metric is not None or dataset is not None):
        raise UserError("--metric and --dataset choose from a table: give --table")
    known = tables.load(table, chosen, metric, dataset=dataset) if isinstance(table, str) else table
    if not proxies:  # every objective is a cost: nothing needs data
        return Setting(chosen, default_evaluator(chosen, ()), known, {})
    source = specs.load(chosen, data)
    evaluator = ProxyEvaluator(
        chosen,
        source.inputs,
        source.targets,
        proxies,
        precision=cast(Any, precision),
        seed=data.seed,
        num_classes=source.num_classes,
    )
    return Setting(chosen, evaluator, known, {**data.config, "batch": len(source.targets)})


def costs_of(
    setting: Setting, models: Sequence[HardwareModel], bounds: Mapping[str, float], wanted: Sequence[str]
) -> Costs:
    """The costs of a ranking, for the networks that its evaluator builds.

    Raises:
        UserError: A name in ``wanted`` is not a known cost.
    """
    task = task_of(setting.evaluator)
    for name in wanted:
        Costs(setting.space, models=models).check(name, f"--cost {name!r}")
    return Costs(setting.space, bounds, models=models, wanted=wanted, **task)


def with_costs(trials: Sequence[Trial], costs: Costs) -> list[Trial]:
    """The trials with their costs among the metrics."""
    completed = []
    for trial in trials:
        metrics = {**trial.evaluation.metrics, **costs(trial.architecture)}
        completed.append(replace(trial, evaluation=replace(trial.evaluation, metrics=metrics)))
    return completed


def known_to(table: Table, space: SearchSpace, subset: str | None = None) -> tuple[SearchSpace, int]:
    """``space``, or a copy that samples uniformly what ``table`` and ``subset`` leave of it; and its size."""
    if subset is None and space.size is not None and len(table) >= space.size:
        return space, space.size

    def architecture(row: int) -> Architecture:
        return space.from_index(row) if table.rows is None else table.rows.architecture(row)

    rows = sorted(table.values)
    if subset is not None:
        rows = [row for row in rows if space.in_subset(architecture(row), subset)]
    part = copy.copy(space)
    vars(part)["sample"] = lambda rng: architecture(rows[rng.randrange(len(rows))])
    vars(part)["all"] = lambda: map(architecture, rows)  # finds the last ones, which samples rarely hit
    return part, len(rows)
