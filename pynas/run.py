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

from pynas import provenance as facts
from pynas import spaces, strategies
from pynas._costs import Costs
from pynas._errors import UserError
from pynas._objectives import checked, completed, evaluated, split, summary
from pynas.architecture import Architecture
from pynas.spaces._identity import constructor_options
from pynas.store import SCHEMA_VERSION, Run, RunConfig, Store
from pynas.strategies import Exhausted, Infeasible, SearchStrategy
from pynas.trial import Evaluation, Evaluator, Status, Trial

if TYPE_CHECKING:
    from pynas.benchmarks import Table
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace

TRIALS_PER_STATE = 32
"""The strategy's state is stored every ``1 + n // TRIALS_PER_STATE`` trials; see ``_Recorder``."""

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
) -> SearchResult:
    """Search a space for architectures with high scores.

    A search killed at any moment and resumed from its store ends with the same trials as one that was not,
    provided that the evaluator gives the same scores for the same architecture.

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
    names = [split(text)[1] for text in objectives]
    known = Costs(space, constraints, models=hardware).names
    identity = dict(config or {})
    if evaluator is None:
        evaluator = default_evaluator(space, [name for name in names if name not in known], seed=seed)
        identity = {**DEFAULT_EVALUATOR, **identity}
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
    with _opened(store) as opened:
        recorder = _Recorder(opened, configuration, searcher, resume)
        evaluating = 0.0
        loop = time.perf_counter()
        while len(recorder.trials) < budget:
            try:
                architecture = searcher.ask()
            except Exhausted:
                break
            except Infeasible as error:
                raise UserError(f"{error}: {costs.explain()}. Relax the constraints") from None
            before = time.perf_counter()
            is_first = not recorder.trials
            evaluation = evaluated(evaluator, architecture, is_first, searcher.fidelity(architecture))
            evaluating += time.perf_counter() - before
            evaluation = completed(evaluation, objectives, costs, costs(architecture), architecture, is_first)
            accuracy = table.accuracy(architecture) if table is not None else None
            if accuracy is not None:
                metrics = {**evaluation.metrics, "accuracy": float(accuracy)}
                evaluation = replace(evaluation, metrics=metrics)
            trial = recorder.record(architecture, evaluation)
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


class _Recorder:
    """The trials of one run: in memory, in the strategy, and, if there is one, in the store.

    The state of a strategy grows with its trials. Stored with every trial it would cost a time quadratic in
    their number, so it is stored every ``1 + n // TRIALS_PER_STATE`` trials, in the transaction of the trial
    that it includes; the trials after it are replayed on resuming, which also checks that the strategy
    proposes the same.
    """

    def __init__(
        self, store: Store | None, config: RunConfig, strategy: SearchStrategy, resume: bool
    ) -> None:
        if resume and store is None:
            raise UserError("resume: needs a store to continue from; give its path")
        self._store = store
        self._strategy = strategy
        self._in_state = 0
        self.trials: list[Trial] = []
        if store is None:
            self.run = Run(None, config, facts.collect())
            return
        self.run = store.start(config, facts.collect() | {"schema": SCHEMA_VERSION}, resume=resume)
        self.trials += store.trials(self.run)
        saved = store.state(self.run)
        if saved is not None:
            self._in_state, state = saved
            strategy.load_state(state)
        for trial in self.trials[self._in_state :]:
            if strategy.ask() != trial.architecture:
                raise UserError(
                    f"{store.location}: run {self.run.id} cannot be continued: trial {trial.number} is not "
                    "what the strategy proposes now; another version wrote it. Start a run with another seed"
                )
            strategy.tell(trial)

    def record(self, architecture: Architecture, evaluation: Evaluation) -> Trial:
        number = len(self.trials)
        trial = Trial(number, architecture, evaluation)
        self._strategy.tell(trial)
        if self._store is not None:
            due = number + 1 - self._in_state > number // TRIALS_PER_STATE
            self._store.append(self.run, trial, self._strategy.state() if due else None)
            self._in_state = number + 1 if due else self._in_state
        self.trials.append(trial)
        return trial


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
