"""Running a search: ask, evaluate, tell, store, until the budget is spent."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pynas import spaces, strategies
from pynas._costs import Costs
from pynas._errors import UserError
from pynas._objectives import checked, completed, evaluated, split, summary
from pynas._recorder import Proposal, Recorder
from pynas.architecture import Architecture
from pynas.spaces._identity import constructor_options
from pynas.store import Run, RunConfig, Store
from pynas.strategies import Infeasible
from pynas.trial import Evaluation, Evaluator, Status, Trial

if TYPE_CHECKING:
    from pynas.benchmarks import Table
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace

DEFAULT_EVALUATOR: Mapping[str, Any] = MappingProxyType(
    {"images": "digits", "batch": 256, "precision": "float32"}
)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        run: The search's configuration and provenance, and its number in the store.
        trials: Every trial by number, those of earlier sessions of a resumed search included.
        best: The trial with the highest objective, or with several the highest mean rank; None if all failed.
        pareto: The trials that no other beats in every objective, by number; where no objective is a cost,
            FLOPs count as another one.
        seconds: Wall-clock seconds of this session.
        overhead_seconds: Those of them spent in the search itself: ask, tell, canonical forms, costs, store.
        hypervolume: Share of the box between the worst and the best value of each objective among the trials
            that the front dominates, in [0, 1]; NaN if all failed, and on more than four axes.
    """

    run: Run
    trials: tuple[Trial, ...]
    best: Trial | None
    pareto: tuple[Trial, ...]
    seconds: float
    overhead_seconds: float
    hypervolume: float = math.nan


def search(
    space: str | SearchSpace,
    strategy: str = "evolution",
    objectives: Sequence[str] = ("zico",),
    constraints: Mapping[str, float] | None = None,
    budget: int = 500,
    evaluator: Evaluator | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    seed: int = 0,
    resume: bool = False,
    table: Table | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    *,
    strategy_options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    hardware: Sequence[HardwareModel] = (),
    workers: int = 1,
) -> SearchResult:
    """Search a space for architectures with high scores.

    A search killed at any moment and resumed from its store ends with the same trials as one that was not,
    provided that the evaluator gives the same scores for the same architecture.

    With ``workers`` processes the strategy is told of trial n only after ``2 * workers - 1`` more were
    proposed, always in the order of their numbers. So the trials depend on the number of processes and not on
    which is faster; ``random`` and ``exhaustive``, which learn nothing, do not depend on it either. A process
    that dies is replaced and its trial begun once more; the second time it has failed.

    Args:
        space: A search space or its name.
        strategy: Name of the search strategy.
        objectives: Names of scores and costs to maximise, or to minimise those with a leading minus:
            ``["zico", "-latency"]``.
        constraints: Upper bounds, hard, on costs: ``params``, ``flops`` (multiply-adds), ``activations``,
            ``memory`` (bytes), ``intensity``, and ``latency`` or ``latency:DEVICE`` of ``hardware``. An
            architecture whose cost is not known does not meet its bound.
        budget: Number of trials, those of a resumed search included. Fewer if the feasible space has fewer
            forms.
        evaluator: Scores an architecture; by default proxies on the embedded digits images. An exception
            makes a
            failed trial, except that a UserError in the very first one is raised. If it has an attribute
            ``config`` (a JSON object), that becomes part of the run's identity.
        store: Where trials are kept: a path, a URL or an open store; None keeps them in memory only.
        seed: Seed of the strategy, and of the default evaluator.
        resume: Continue the run with this configuration in ``store``, or start it there if the store is
            empty.
        table: Known accuracies, added to each trial's metrics as ``accuracy``; the strategy never sees them.
        on_trial: Called after each new trial was stored.
        strategy_options: Options of the strategy, such as ``population_size``.
        config: What else identifies the run (a JSON object), such as the data that ``evaluator`` uses.
        num_classes: Classes of the task, for costs; by default the evaluator's ``num_classes``, else 10.
        image_size: Pixels along a side, for costs; by default that of the evaluator's ``inputs``, else 32.
        hardware: Latencies and energies of devices, from :func:`pynas.hardware.load` or
            :meth:`pynas.hardware.LatencyTable.build`.
        workers: Processes that evaluate, each with a copy of the evaluator, by pickle, and as many threads of
            torch as this one has; 1 for this process alone. More are part of the run's identity.

    Returns:
        All trials, the best, the Pareto front and timings.

    Raises:
        UserError: unknown names, impossible constraints, a store that cannot be used or holds another run.
    """
    start = time.perf_counter()
    space = spaces.get(space) if isinstance(space, str) else space
    objectives = checked(objectives)
    if budget < 1:
        raise UserError(f"budget: expected a positive number of trials, got {budget}")
    if workers < 1:
        raise UserError(f"workers: expected a positive number of processes, got {workers}")
    names = [split(text)[1] for text in objectives]
    known = Costs(space, constraints, models=hardware).names
    identity = dict(config or {})
    if evaluator is None:
        evaluator = default_evaluator(space, [name for name in names if name not in known], seed=seed)
        identity = {**DEFAULT_EVALUATOR, **identity}
    if workers > 1:
        identity["workers"] = workers
    if hardware:
        identity["hardware"] = [model.describe() for model in hardware]
    task = task_of(evaluator, num_classes, image_size)
    wanted = [name for name in names if name in known]
    costs = Costs(space, constraints, models=hardware, wanted=wanted, **task)
    chosen = dict(strategy_options or {})
    searcher = strategies.create(
        strategy, space, seed=seed, feasible=costs.feasible, objectives=objectives, **chosen
    )
    costs.want(searcher.costs, f"strategy {strategy}: cost")
    configuration = RunConfig(
        space=space.name,
        strategy=strategy,
        seed=seed,
        objectives=objectives,
        constraints=costs.bounds,
        config={
            "space": constructor_options(space),
            "strategy": strategies.options(strategy) | chosen,
            "evaluator": dict(getattr(evaluator, "config", {})),
            "table": _table_facts(table),
            **task,
            **identity,
        },
    )
    with _opened(store) as opened, _evaluations(evaluator, min(workers, budget)) as evaluate:
        recorder = Recorder(opened, configuration, searcher, resume, workers)
        evaluating = 0.0
        loop = time.perf_counter()
        while (number := len(recorder.trials)) < budget:
            try:
                proposals = recorder.ask()
            except Infeasible as error:
                raise UserError(f"{error}: {costs.explain()}. Relax the constraints") from None
            if not proposals:
                break
            architecture = proposals[0][0]
            before = time.perf_counter()
            evaluation = evaluate(number, proposals[: budget - number])
            evaluating += time.perf_counter() - before
            is_first = number == 0
            evaluation = completed(evaluation, objectives, costs, costs(architecture), architecture, is_first)
            accuracy = table.accuracy(architecture) if table is not None else None
            if accuracy is not None:
                metrics = {**evaluation.metrics, "accuracy": float(accuracy)}
                evaluation = replace(evaluation, metrics=metrics)
            trial = recorder.record(evaluation)
            if on_trial is not None:
                before = time.perf_counter()
                on_trial(trial)
                evaluating += time.perf_counter() - before
        end = time.perf_counter()
    trials = tuple(recorder.trials)
    best, pareto, volume = summary(trials, objectives, costs.names)
    return SearchResult(recorder.run, trials, best, pareto, end - start, end - loop - evaluating, volume)


def default_evaluator(
    space: SearchSpace,
    proxies: Sequence[str],
    *,
    seed: int = 0,
) -> Evaluator:
    """Score by zero-shot proxies on a seeded batch of the embedded digits; imports torch if there are any."""
    if not proxies:
        return _nothing
    from pynas import data
    from pynas.evaluate import ProxyEvaluator

    source = data.load_images(DEFAULT_EVALUATOR["images"])
    inputs, targets = data.batch(source, DEFAULT_EVALUATOR["batch"], seed)
    return ProxyEvaluator(
        space,
        inputs,
        targets,
        proxies,
        precision=DEFAULT_EVALUATOR["precision"],
        seed=seed,
        num_classes=source.num_classes,
    )


def _nothing(architecture: Architecture) -> Evaluation:
    """The evaluation where every objective is a cost."""
    return Evaluation(Status.OK)


@contextmanager
def _evaluations(
    evaluator: Evaluator, workers: int
) -> Iterator[Callable[[int, Sequence[Proposal]], Evaluation]]:
    """What evaluates trial ``number``, given what is proposed for it and for those after it."""
    if workers == 1:
        yield lambda number, proposals: evaluated(evaluator, proposals[0][0], number == 0, proposals[0][1])
        return
    from pynas._workers import Workers  # which takes a hundredth of a second to import

    with Workers(evaluator, workers) as pool:
        yield pool


@contextmanager
def _opened(store: str | os.PathLike[str] | Store | None) -> Iterator[Store | None]:
    if store is None or isinstance(store, Store):
        yield store
    else:
        with Store(store) as opened:
            yield opened


def task_of(
    evaluator: Evaluator, num_classes: int | None = None, image_size: int | None = None
) -> dict[str, int]:
    """What costs depend on beside the architecture, from the evaluator's images where it has some."""
    shape = tuple(getattr(getattr(evaluator, "inputs", None), "shape", ()))
    channels, size = shape[-3] if len(shape) > 3 else 3, shape[-1] if len(shape) > 1 else 32
    return {
        "num_classes": getattr(evaluator, "num_classes", 10) if num_classes is None else num_classes,
        "image_size": size if image_size is None else image_size,
        "in_channels": channels,
    }


def _table_facts(table: Table | None) -> dict[str, str] | None:
    if table is None:
        return None
    return {"name": table.name, "metric": table.metric, "dataset": table.dataset}
