"""Running a search: ask, evaluate, tell, store, until the budget is spent."""

from __future__ import annotations

import math
import operator
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pynas import _named, spaces, strategies
from pynas._errors import UserError, UserNotice
from pynas._user_values import shown
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.hardware.model import UNITS, cautions
from pynas.run.evaluation import evaluated, with_accuracy
from pynas.run.identity import Identity, identity_of
from pynas.run.objectives import checked, completed, split, summary
from pynas.run.recorder import Recorder
from pynas.run.result import SearchResult
from pynas.store import Store
from pynas.strategies import Infeasible, SearchStrategy
from pynas.trial import Evaluation, Evaluator, Proposal, Status, Trial, members_of

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.tables import Table

DEFAULT_EVALUATOR: Mapping[str, Any] = MappingProxyType(
    {"images": "digits", "batch": 256, "precision": "float32"}
)


def search(
    space: str | SearchSpace,
    strategy: strategies.Chosen = "evolution",
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
    on_start: Callable[[Sequence[Trial]], None] | None = None,
    strategy_options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    hardware: Sequence[HardwareModel] = (),
    workers: int = 1,
    images: Any = None,
    batch: int | None = None,
) -> SearchResult:
    """Search a space for architectures with high scores.

    A search killed at any moment and resumed from its store ends with the same trials as one that was not,
    provided that the evaluator gives the same scores for the same architecture.

    With ``workers`` processes the strategy is told of trial n only after ``2 * workers - 1`` more were
    proposed, always in the order of their numbers. So the trials depend on the number of processes and not on
    which is faster; ``random`` and ``exhaustive``, which learn nothing, do not depend on it either. A process
    that dies, also while it starts, is replaced and its trial begun once more; the second time it has failed.

    Args:
        space: A search space, or what :func:`pynas.spaces.open_space` opens: its name with options, or
            ``package.module:object``.
        strategy: Name of the search strategy, a class of them, ``package.module:object``, or an instance for
            this space, which the search copies; an instance has its own seed and options.
        objectives: Names of scores and costs to maximise, or to minimise those with a leading minus:
            ``["zico", "-latency"]``. Without an evaluator also
            ``package.module:object``, a proxy of your own.
        constraints: Upper bounds, hard, on costs: ``params``, ``flops`` (multiply-adds), ``activations``,
            ``memory`` (bytes), ``intensity``, and ``latency`` or ``latency:DEVICE`` of ``hardware``. An
            architecture whose cost is not known does not meet its bound.
        budget: Number of trials, those of a resumed search included. Fewer if the feasible space has fewer
            forms.
        evaluator: Scores an architecture; by default proxies on ``images``. Whatever it
            raises or returns, the search goes on: see :class:`pynas.trial.Evaluator`. Only KeyboardInterrupt
            ends it, and a UserError in the very first trial.
        store: Where trials are kept: a path, a URL or an open store; None keeps them in memory only.
        seed: Seed of the strategy, and of the default evaluator.
        resume: Continue the run with this configuration in ``store``, or start it there if the store is
            empty. The configuration is all that follows from these arguments: the space with its options, or
            the code of a user's own; strategy, seed, objectives and bounds; ``config`` of the evaluator, or
            its code, what it closes over and its attributes; digests of ``table`` and ``hardware``. Anything
            else is refused, with what differs.
        table: Known accuracies, added to each trial's metrics as ``accuracy``; the strategy never sees them.
        on_trial: Called after each new trial was stored; what it raises ends the search.
        on_start: Called once before the first new trial, with those that a resumed search has in its store.
        strategy_options: Options of the strategy, such as ``population_size``.
        config: What else identifies the run (JSON values by name; those of NumPy and paths are converted),
            such as the files that ``evaluator`` reads.
        num_classes: Classes of the task, for costs; by default the evaluator's ``num_classes``, else 10. Of
            ``images`` the number of classes, where they show only some.
        image_size: Pixels along a side, for costs; by default that of the evaluator's ``inputs``, else 32.
            ``images`` are resized to it.
        hardware: Latencies and energies of devices, from :func:`pynas.hardware.load` or
            :meth:`pynas.hardware.LatencyTable.build`. A :class:`UserNotice` is warned of where they are of
            other networks than ``table``, or their error is large.
        workers: Processes that evaluate, each with a copy of the evaluator, by pickle, and as many threads of
            torch as this one has; 1 for this process alone. More are part of the run's identity.
        images: Images that proxies score with: what :func:`pynas.data.load_images` reads, such as
            ``"folder:photos"``, a ``Dataset`` or a ``DataLoader``; by default the digits that are part of
            scikit-learn, at 32 pixels. They belong to the run's identity.
        batch: Number of images, drawn once; by default 256, or as many as there are.

    Returns:
        All trials, the best, the Pareto front and timings.

    Raises:
        UserError: unknown names, impossible constraints, a store that cannot be used or holds another run.
    """
    start = time.perf_counter()
    space = spaces.open_space(space) if isinstance(space, str) else space
    chosen_strategy, strategy_name = strategies.resolve(strategy), strategies.name_of(strategy)
    objectives = checked(objectives)
    seed = _integer("seed", seed, "a whole number of 64 bits", -(2**63), 2**63 - 1)
    budget = _integer("budget", budget, "a positive number of trials", 1)
    workers = _integer("workers", workers, "a positive number of processes", 1)
    objectives = checked([_own_proxy(text) for text in objectives]) if evaluator is None else objectives
    names = [split(text)[1] for text in objectives]
    costs = Costs(space, constraints, models=hardware)
    for caution in cautions(hardware, None if table is None else table.dataset):
        warnings.warn(caution, UserNotice, stacklevel=2)
    known = costs.names
    extra = dict(config or {})
    if evaluator is None:
        wanted = [name for name in names if name not in known]
        own = images is not None
        evaluator = default_evaluator(
            space,
            wanted,
            seed=seed,
            images=images if own else DEFAULT_EVALUATOR["images"],
            size=image_size if own else None,
            batch=batch,
            classes=num_classes if own else None,
        )
        extra = {**DEFAULT_EVALUATOR, **_images_facts(images, batch, evaluator), **extra}
    elif images is not None or batch is not None:
        raise UserError("images, batch: the evaluator has data of its own; leave out one of the two")
    if workers > 1:
        extra["workers"] = workers
    task = task_of(evaluator, num_classes, image_size)
    costs.of_task(**task)
    costs.want([name for name in names if name in known], "objective")
    chosen = dict(strategy_options or {})

    def made(options: Mapping[str, Any]) -> tuple[SearchStrategy, Identity]:
        searcher = strategies.create(
            chosen_strategy, space, seed=seed, feasible=costs.feasible, objectives=objectives, **options
        )
        costs.want(searcher.costs, f"strategy {strategy_name}: cost")
        identity = identity_of(
            space,
            strategy_name,
            seed,
            objectives,
            costs.bounds,
            searcher=searcher,
            options=strategies.recorded(chosen_strategy, options),
            evaluator=None if evaluator is _nothing else evaluator,
            table=table,
            hardware=hardware,
            task=task,
            extra=extra,
        )
        return searcher, identity

    searcher, identity = made(chosen)
    scored = [name for name in names if name not in known]
    with ExitStack() as stack:
        opened = stack.enter_context(_opened(store))
        before = strategies.former(chosen_strategy, chosen)
        if resume and opened is not None and before != chosen and not identity.is_in(opened):
            older = made(before)
            if older[1].is_in(opened):  # begun when the strategy had fewer options
                searcher, identity = older
        evaluate = stack.enter_context(_evaluations(evaluator, min(workers, budget), scored))
        stack.enter_context(identity.in_use())
        recorder = Recorder(opened, identity, searcher, resume, workers)
        if recorder.run.config is not identity.config:
            _check_costs(recorder, costs, table)
        if on_start is not None:
            on_start(tuple(recorder.trials))
        evaluating = 0.0
        loop = time.perf_counter()
        while (number := len(recorder.trials)) < budget:
            try:
                proposals = recorder.ask()
            except Infeasible as error:
                raise UserError(f"{error}: {costs.explain()}. Relax the constraints") from None
            if not proposals:
                break
            architecture = proposals[0].architecture
            begun = time.perf_counter()
            evaluation = evaluate(number, proposals[: budget - number])
            evaluating += time.perf_counter() - begun
            is_first = number == 0
            evaluation = completed(evaluation, objectives, costs, costs(architecture), architecture, is_first)
            if table is not None:
                evaluation = with_accuracy(evaluation, table, architecture, is_first)
            trial = recorder.record(evaluation)
            if on_trial is not None:
                begun = time.perf_counter()
                on_trial(trial)
                evaluating += time.perf_counter() - begun
        end = time.perf_counter()
    trials = tuple(recorder.trials)
    best, pareto, volume = summary(trials, objectives, costs.names)
    return SearchResult(
        recorder.run, trials, best, pareto, end - start, end - loop - evaluating, volume, space
    )


def _own_proxy(objective: str) -> str:
    """An objective ``package.module:object`` by the name of the proxy that the object is."""
    name = split(objective)[1]
    if not _named.is_path(name) or name.partition(":")[0] in UNITS:
        return objective
    from pynas import proxies

    return objective.removesuffix(name) + proxies.get(name).name


def default_evaluator(
    space: SearchSpace,
    proxies: Sequence[str],
    *,
    seed: int = 0,
    images: Any = DEFAULT_EVALUATOR["images"],
    size: int | None = None,
    batch: int | None = None,
    classes: int | None = None,
) -> Evaluator:
    """Score by zero-shot proxies on a seeded batch of images; imports torch if there are any proxies."""
    if not proxies:
        return _nothing
    from pynas import data
    from pynas.evaluate import ProxyEvaluator

    drawn = data.draw(images, size=size, batch=batch, classes=classes, seed=seed)
    return ProxyEvaluator(
        space,
        drawn.inputs,
        drawn.targets,
        proxies,
        precision=DEFAULT_EVALUATOR["precision"],
        seed=seed,
        num_classes=drawn.num_classes,
    )


def _images_facts(images: Any, batch: int | None, evaluator: Evaluator) -> dict[str, Any]:
    """What a store calls the images; their values are the evaluator's to tell."""
    inputs = members_of(evaluator).inputs
    facts: dict[str, Any] = {} if inputs is None else {"batch": len(inputs)}
    if images is not None:
        facts["images"] = (
            images if isinstance(images, str) else getattr(images, "name", type(images).__name__)
        )
    return facts if batch is None or inputs is not None else {**facts, "batch": batch}


def _nothing(architecture: Architecture) -> Evaluation:
    """The evaluation where every objective is a cost."""
    return Evaluation(Status.OK)


@contextmanager
def _evaluations(
    evaluator: Evaluator, workers: int, scored: Sequence[str]
) -> Iterator[Callable[[int, Sequence[Proposal]], Evaluation]]:
    """What evaluates trial ``number``, given what is proposed for it and for those after it."""
    if workers == 1:
        yield lambda number, proposals: evaluated(evaluator, proposals[0], number == 0, scored)
        return
    from pynas.run.workers import Workers  # which takes a hundredth of a second to import

    with Workers(evaluator, workers, scored) as pool:
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
    members = members_of(evaluator)
    shape = tuple(getattr(members.inputs, "shape", ()))
    channels, size = shape[-3] if len(shape) > 3 else 3, shape[-1] if len(shape) > 1 else 32
    if num_classes is None:
        num_classes = members.num_classes
    sizes = {
        "num_classes": 10 if num_classes is None else num_classes,
        "image_size": size if image_size is None else image_size,
        "in_channels": channels,
    }
    return {name: _integer(name, value, "a positive integer", 1) for name, value in sizes.items()}


def _integer(name: str, value: object, expected: str, least: int, most: float = math.inf) -> int:
    """A whole number of any kind, NumPy's too; UserError if it is none or out of range."""
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise UserError(f"{name}: expected {expected}, got {shown(value) if number is None else number}")
    return number


def _check_costs(recorder: Recorder, costs: Costs, table: Table | None) -> None:
    """Whether the trials of a run stored without digests of its table and hardware have these numbers.

    Raises:
        UserError: They have others.
    """
    for trial in recorder.trials:
        known = {**costs(trial.architecture)}
        if table is not None:
            bare = Evaluation(Status.OK)
            known |= with_accuracy(bare, table, trial.architecture, is_first=False).metrics
        for name, now in known.items():
            then = trial.evaluation.metrics.get(name, math.nan)
            if not (math.isclose(now, then, rel_tol=1e-9) or (math.isnan(now) and math.isnan(then))):
                raise UserError(
                    f"resume: {name} of trial {trial.number} is {then} in the store and {now} now: the table "
                    "or a model of the hardware is another one. Use the same, or another store"
                )
