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
from pynas._multiobjective import mean_ranks, pareto_front
from pynas.architecture import Architecture
from pynas.spaces._identity import constructor_options
from pynas.store import SCHEMA_VERSION, Run, RunConfig, Store
from pynas.strategies import Exhausted, Infeasible, SearchStrategy
from pynas.trial import Evaluation, Evaluator, Status, Trial

if TYPE_CHECKING:
    from pynas.benchmarks import Table
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
        pareto: The trials that no other beats in every objective and in FLOPs, by number.
        seconds: Wall-clock seconds of this session.
        overhead_seconds: Those of them spent in the search itself: ask, tell, canonical forms, costs, store.
    """

    run: Run
    trials: tuple[Trial, ...]
    best: Trial | None
    pareto: tuple[Trial, ...]
    seconds: float
    overhead_seconds: float


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
) -> SearchResult:
    """Search a space for architectures with high scores.

    A search killed at any moment and resumed from its store ends with the same trials as one that was not,
    provided that the evaluator gives the same scores for the same architecture.

    Args:
        space: A search space or its name.
        strategy: Name of the search strategy.
        objectives: Names of the scores to maximise.
        constraints: Upper bounds, hard, on ``params`` and ``flops`` (multiply-adds).
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

    Returns:
        All trials, the best, the Pareto front and timings.

    Raises:
        UserError: unknown names, impossible constraints, a store that cannot be used or holds another run.
    """
    start = time.perf_counter()
    space = spaces.get(space) if isinstance(space, str) else space
    objectives = (objectives,) if isinstance(objectives, str) else tuple(objectives)
    if budget < 1:
        raise UserError(f"budget: expected a positive number of trials, got {budget}")
    if not objectives or len(set(objectives)) < len(objectives):
        raise UserError(
            f"objectives: expected at least one name and none twice, got {', '.join(objectives) or 'none'}"
        )
    identity = dict(config or {})
    if evaluator is None:
        evaluator = default_evaluator(space, objectives, seed=seed)
        identity = {**DEFAULT_EVALUATOR, **identity}
    task = _task(evaluator, num_classes, image_size)
    costs = Costs(space, constraints, **task)
    chosen = dict(strategy_options or {})
    searcher = strategies.create(
        strategy, space, seed=seed, feasible=costs.feasible, objectives=objectives, **chosen
    )
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
            evaluation = _evaluate(evaluator, architecture, objectives, is_first=not recorder.trials)
            evaluating += time.perf_counter() - before
            metrics = {**evaluation.metrics, **costs(architecture)}
            accuracy = table.accuracy(architecture) if table is not None else None
            if accuracy is not None:
                metrics["accuracy"] = float(accuracy)
            trial = recorder.record(architecture, replace(evaluation, metrics=metrics))
            if on_trial is not None:
                before = time.perf_counter()
                on_trial(trial)
                evaluating += time.perf_counter() - before
        end = time.perf_counter()
    trials = tuple(recorder.trials)
    best, pareto = _summarise(trials, objectives)
    return SearchResult(recorder.run, trials, best, pareto, end - start, end - loop - evaluating)


def default_evaluator(
    space: SearchSpace,
    proxies: Sequence[str],
    *,
    seed: int = 0,
) -> Evaluator:
    """Score by zero-shot proxies on a seeded batch of the embedded digits; imports torch."""
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


def _evaluate(
    evaluator: Evaluator, architecture: Architecture, objectives: tuple[str, ...], is_first: bool
) -> Evaluation:
    """Evaluate; what goes wrong makes a failed evaluation, or the first time an error if a person can act."""
    start = time.perf_counter()
    try:
        evaluation = evaluator(architecture)
        missing = [name for name in objectives if name not in evaluation.scores]
        if missing and evaluation.status is Status.OK:
            given = ", ".join(evaluation.scores) or "none"
            raise UserError(f"objective {missing[0]!r}: the evaluator does not give it; it gives: {given}")
    except Exception as error:
        if is_first and isinstance(error, UserError):
            raise
        message = f"{type(error).__name__}: {error}"
        return Evaluation(Status.FAILED, message=message, seconds=time.perf_counter() - start)
    scores = {name: float(value) for name, value in evaluation.scores.items()}
    bad = [name for name in objectives if not math.isfinite(scores.get(name, math.nan))]
    if bad and evaluation.status is Status.OK:
        message = f"{bad[0]} is not finite: {scores[bad[0]]}"
        return replace(evaluation, status=Status.FAILED, scores=scores, message=message)
    return replace(evaluation, scores=scores)


def _summarise(trials: Sequence[Trial], objectives: Sequence[str]) -> tuple[Trial | None, tuple[Trial, ...]]:
    """The best trial and the Pareto front over objectives and FLOPs."""
    valid = [trial for trial in trials if trial.evaluation.status is Status.OK]
    if not valid:
        return None, ()
    scores = [[trial.evaluation.scores[name] for name in objectives] for trial in valid]
    ranks = mean_ranks(scores)
    points = [[*row, -trial.evaluation.metrics["flops"]] for row, trial in zip(scores, valid, strict=True)]
    return valid[ranks.index(max(ranks))], tuple(valid[i] for i in pareto_front(points))


def _task(evaluator: Evaluator, num_classes: int | None, image_size: int | None) -> dict[str, int]:
    """What costs depend on beside the architecture, from the evaluator's images where it has some."""
    shape = tuple(getattr(getattr(evaluator, "inputs", None), "shape", ()))
    channels, size = (shape[1], shape[-1]) if len(shape) == 4 else (3, 32)
    return {
        "num_classes": getattr(evaluator, "num_classes", 10) if num_classes is None else num_classes,
        "image_size": size if image_size is None else image_size,
        "in_channels": channels,
    }


def _table_facts(table: Table | None) -> dict[str, str] | None:
    if table is None:
        return None
    return {"name": table.name, "metric": table.metric, "dataset": table.dataset}
