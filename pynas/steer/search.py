"""A search that can be steered while it runs: its state, what happens in it, and what can be done to it."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas import spaces
from pynas._errors import UserError
from pynas._io import provenance as facts
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.run.evaluation import evaluated, with_accuracy
from pynas.run.identity import Identity, identity_of
from pynas.run.loop import default_evaluator, task_of
from pynas.run.objectives import checked, completed, split
from pynas.spaces.identity import constructor_options
from pynas.steer import _reading
from pynas.steer._admission import admitted
from pynas.steer._blocks import BlockFitness, block_fitness
from pynas.steer._documents import action_document, preview
from pynas.steer._labels import labels_of
from pynas.steer._progress import Progress
from pynas.steer._settings import Allowed, Malformed, Refused, Settings, everything, is_allowed
from pynas.steer._state import Queued, State
from pynas.steer._strategy import Adviser
from pynas.steer._texts import told
from pynas.store import DAMAGED, SCHEMA_VERSION, Action, Journal, Run, Store
from pynas.strategies import Exhausted, Infeasible
from pynas.trial import Evaluation, Evaluator, Proposal, Trial

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.steer._training import Point, SupernetTraining
    from pynas.tables import Table

STEPS = "steps"
"""The metric of a trial that says how many steps of training its shared weights had had."""

Listener = Callable[[str, Any], None]


@dataclass(frozen=True)
class Unit:
    """One thing to compute: a trial, or a step of training. What runs it knows nothing of the search.

    Attributes:
        kind: ``trial`` or ``step``.
        number: Of the trial, or of the step over all phases.
        architecture: Of a trial.
        by: Whose it is: ``strategy`` or ``analyst``.
        who: Who added it, of an analyst's.
        run: Computes it, in any thread; raises nothing.
    """

    kind: str
    number: int
    run: Callable[[], Any]
    architecture: Architecture | None = None
    by: str = "strategy"
    who: str = ""
    settings: Settings | None = None


class SteeredSearch:
    """A search whose space, strategy, constraints, weights and budget change while it runs.

    It is driven by its caller, one unit of work at a time: :meth:`advance` trains one step or evaluates one
    trial. In between, :meth:`act` does what an analyst wants: see docs/design/steering_protocol.md for the
    kinds of action. Every action is stored before it takes effect, with the number of the trial and of the
    training step before which it does, so a search that was killed, or is replayed, does the same. It is not
    thread-safe; :class:`pynas.steer.Steering` runs one in threads.

    Training goes first: while a phase runs, no trial begins. A trial is scored with the weights there are.
    When they have changed, earlier trials no longer count (for the strategy, the best, the blocks), and may
    be proposed again.

    Args:
        space: A search space with a fixed number of decisions, or its name.
        evaluator: Scores an architecture, as in :func:`pynas.search`; by default proxies on the digits. None
            with ``training``.
        training: A supernet that is trained and scores, as the objective ``accuracy``.
        strategy: Name of the first strategy.
        objectives: Names of scores and costs, as in :func:`pynas.search`.
        constraints: First upper bounds on costs.
        budget: First number of trials.
        store: Where trials and actions are kept; None keeps them in memory. A search with a supernet keeps
            its checkpoints beside the file.
        seed: Seed of everything.
        resume: Go on with the run of this configuration in the store, or begin it.
        table: Known accuracies, as the metric ``accuracy``; nobody sees them before.
        strategy_options: Options of the first strategy.
        config: What else identifies the run, as JSON values.
        num_classes: Classes of the task, for costs.
        image_size: Pixels along a side, for costs.
        hardware: Models of devices, for costs.
        checkpoints: Folder of checkpoints, where it cannot be beside the store.
        script: Actions to do at their places, of another search; none can be done meanwhile.

    Raises:
        UserError: As :func:`pynas.search`; and for spaces without a fixed number of decisions.
    """

    def __init__(
        self,
        space: str | SearchSpace,
        evaluator: Evaluator | None = None,
        *,
        training: SupernetTraining | None = None,
        strategy: str = "evolution",
        objectives: str | Sequence[str] | None = None,
        constraints: Mapping[str, float] | None = None,
        budget: int = 100,
        store: str | os.PathLike[str] | Store | None = None,
        seed: int = 0,
        resume: bool = False,
        table: Table | None = None,
        strategy_options: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        image_size: int | None = None,
        hardware: Sequence[HardwareModel] = (),
        checkpoints: str | os.PathLike[str] | None = None,
        script: Sequence[Action] = (),
    ) -> None:
        self.space = spaces.get(space) if isinstance(space, str) else space
        if not self.space.num_choices:
            raise UserError(
                f"space: {self.space.name} has no fixed number of decisions, so it has no blocks to steer "
                "by; expected a space that has"
            )
        if training is not None and evaluator is not None:
            raise UserError("evaluator: a supernet scores by itself; leave out evaluator or training")
        if resume and store is None:
            raise UserError("resume: needs a store to continue from; give its path")
        self.seed, self.training, self.table = seed, training, table
        self.objectives = checked(objectives or (("accuracy",) if training else ("zico",)))
        names = [split(text)[1] for text in self.objectives]
        self.cost_names = known = Costs(self.space, models=hardware).names
        self.labels = labels_of(self.space)
        self.spec = _spec(self.space)
        self.sizes: dict[Allowed, tuple[str | None, bool]] = {}
        if evaluator is None and training is None:
            evaluator = default_evaluator(self.space, [n for n in names if n not in known], seed=seed)
        self._evaluator = evaluator
        judge: Any = evaluator if training is None else training
        self.task = task_of(judge, num_classes, image_size)
        self._hardware = tuple(hardware)
        self._scored = [name for name in names if name not in known]
        self._wanted = [name for name in names if name in known]
        self.adviser = Adviser(self.space, self.objectives, seed, self.costs_with)
        first = Settings(
            everything(self.space), strategy, dict(strategy_options or {}), 0, dict(constraints or {})
        )
        costs = self.costs_with(first.bounds)
        first = replace(first, bounds=dict(costs.bounds))
        searcher = self.adviser.make(first, seed, costs)
        self.state = State(first, self.space.name)
        identity = identity_of(
            self.space,
            strategy,
            seed,
            self.objectives,
            costs.bounds,
            searcher=searcher,
            options=dict(strategy_options or {}),
            evaluator=judge,
            table=table,
            hardware=hardware,
            task=self.task,
            extra={"steered": True, **dict(config or {})},
        )
        self.trials: list[Trial] = []
        self.by: list[tuple[str, str]] = []
        self.actions: list[Action] = []
        self.points: list[dict[str, Any]] = []
        self.steps = 0
        self.unit: Unit | None = None
        self.seconds = 0.0
        self._listeners: list[Listener] = []
        self._exit = contextlib.ExitStack()
        self._pending: deque[Action] = deque(script)
        self._known: tuple[Trial, ...] = ()
        self.progress = self._new_progress()
        try:
            self._open(store, identity, resume, checkpoints)
        except BaseException:
            self._exit.close()
            raise
        if not self._pending and not self.actions:
            self._write("budget", {"trials": _budget(budget)}, "start")

    # ---- beginning and end ---------------------------------------------------------------------------

    def _open(
        self,
        store: str | os.PathLike[str] | Store | None,
        identity: Identity,
        resume: bool,
        checkpoints: str | os.PathLike[str] | None,
    ) -> None:
        self.store: Store | None = None
        self._journal: Journal | None = None
        self.run = Run(None, identity.config, facts.collect())
        if store is not None:
            opened = store if isinstance(store, Store) else self._exit.enter_context(Store(store))
            self.store = opened
            config = identity.in_store(opened, resume)
            self.run = opened.start(config, facts.collect() | {"schema": SCHEMA_VERSION}, resume=resume)
            self._journal = Journal(opened, self.run, write=True)
            self._known = opened.trials(self.run, check=self.space.check)
            stored = self._journal.actions()
            if stored and self._pending:
                raise UserError(
                    f"{opened.location}: run {self.run.id} has actions already, so none are replayed"
                )
            self._pending.extend(stored)
        self._exit.enter_context(identity.in_use())
        if self.training is None:
            return
        folder = None if checkpoints is None else Path(checkpoints)
        if folder is None and self.store is not None:
            beside = self.store.file
            if beside is None:
                raise UserError("checkpoints: the store is no file, so give a folder for them")
            folder = beside.with_name(f"{beside.name}.weights") / f"run-{self.run.id}"
        self.training.use_folder(folder, resume=resume)
        if self._journal is not None and resume:
            self.points.extend(self._journal.points())

    def close(self) -> None:
        """Close the store; everything is in it already."""
        if self.training is not None:
            self.training.close()
        self._exit.close()

    def __enter__(self) -> SteeredSearch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def listen(self, listener: Listener) -> None:
        """Call ``listener(kind, value)`` for each ``trial``, ``action``, ``point`` and ``state``."""
        self._listeners.append(listener)

    def _tell(self, kind: str, value: Any = None) -> None:
        for listener in self._listeners:
            listener(kind, value)

    # ---- what it is doing ----------------------------------------------------------------------------

    @property
    def is_catching_up(self) -> bool:
        """Whether it repeats what the store, or a script, says that happened; no action can be done then."""
        return bool(self._pending) or len(self.trials) < len(self._known)

    @property
    def status(self) -> str:
        """``paused``, ``running``, ``finished``, ``stopped`` or ``cancelled``."""
        if self.state.status == "running" and self.unit is None and self.waiting in ("budget", "exhausted"):
            return "finished"
        return self.state.status

    @property
    def waiting(self) -> str | None:
        """Why no trial begins although the search runs, or what a status still waits for."""
        if self.is_catching_up:
            return "catching_up"
        busy = self.unit is not None and self.unit.kind == "trial"
        if self.state.status == "paused" and busy:
            return "pausing"
        if self.state.status == "stopped" and self.unit is not None:
            return "stopping"
        if self.state.status != "running":
            return None
        if self.state.phase.status == "running":
            return "training"
        if self._begun_trials >= self.state.settings.budget:
            return None if busy else "budget"
        return "exhausted" if self.state.exhausted and not self.state.queue else None

    @property
    def is_idle(self) -> bool:
        """Whether :meth:`advance` has nothing to do until somebody acts."""
        if self.unit is not None or self._pending:
            return False
        return not self._trains and not self._searches

    @property
    def _trains(self) -> bool:
        return self.state.phase.status == "running" and not self.state.is_ended

    @property
    def _searches(self) -> bool:
        state = self.state
        if state.status != "running" or len(self.trials) >= state.settings.budget:
            return False
        return bool(state.queue) or not state.exhausted

    @property
    def _begun_trials(self) -> int:
        return len(self.trials) + (self.unit is not None and self.unit.kind == "trial")

    @property
    def _begun_steps(self) -> int:
        return self.steps + (self.unit is not None and self.unit.kind == "step")

    @property
    def allowed_space(self) -> SearchSpace:
        """The space as it is allowed now."""
        return self.adviser.space(self.state.settings)

    def counts(self, trial: Trial) -> bool:
        """Whether a trial was scored with the present weights."""
        return self.training is None or trial.evaluation.metrics.get(STEPS) == self.steps

    def costs_with(self, bounds: Mapping[str, float]) -> Costs:
        """Costs of the task, with these bounds; UserError for a bound that cannot be."""
        costs = Costs(self.space, bounds, models=self._hardware)
        costs.of_task(**self.task)
        costs.want(self._wanted, "objective")
        return costs

    def _new_progress(self, trials: Sequence[Trial] = ()) -> Progress:
        progress = Progress(self.objectives, self.cost_names, self.state.settings.weights)
        for trial in filter(self.counts, trials):
            progress.add(trial)
        return progress

    # ---- one unit of work ----------------------------------------------------------------------------

    def advance(self) -> bool:
        """Train one step or evaluate one trial; False if there is nothing to do until somebody acts."""
        unit = self.begin()
        if unit is None:
            return False
        self.finish(unit, unit.run())
        return True

    def begin(self) -> Unit | None:
        """The next unit of work, begun; None if there is nothing to do. :meth:`finish` has to follow.

        Raises:
            UserError: What the store says cannot have happened.
        """
        if self.unit is not None:
            raise RuntimeError("a unit of work is under way: finish it first")
        self._do_due()
        if self._trains:
            self.unit = self._step_unit()
        elif self._searches:
            self.unit = self._trial_unit()
        elif self._pending or len(self.trials) < len(self._known):
            raise self._diverged("nothing is to be done, and more was done")
        return self.unit

    def _do_due(self) -> None:
        """Do what was done here, of a search that is resumed or replayed."""
        was = bool(self._pending)
        while self._pending:
            first, last = self._pending[0], self._pending[-1]
            here = (len(self.trials), self.steps)
            ends = last.kind == "cancel" and (last.trial, last.step) == here
            if not ends and (first.trial, first.step) != here:
                if first.trial < here[0] or first.step < here[1]:
                    raise self._diverged(f"action {first.number} was before trial {first.trial}")
                break
            self._pending.popleft()
            self._do(first)
        if was and not self.is_catching_up:
            self._tell("state")

    def _diverged(self, what: str) -> UserError:
        where = "" if self.store is None else f"{self.store.location}: run {self.run.id}: "
        return UserError(
            f"{where}cannot be continued at trial {len(self.trials)}, step {self.steps}: {what}. "
            f"Another version wrote it, or {DAMAGED}"
        )

    def _step_unit(self) -> Unit:
        training, phase, space = self.training, self.state.phase, self.allowed_space
        assert training is not None
        number, epochs, step, total = phase.number, phase.epochs, phase.step, self.steps

        def run() -> Point | UserError | None:
            try:
                return training.step(number, epochs, step, total, space)
            except UserError as error:
                return error

        return Unit("step", total, run)

    def _trial_unit(self) -> Unit | None:
        number, settings = len(self.trials), self.state.settings
        by, who, fidelity = "strategy", "", 1.0
        queued = self._next_queued()
        if queued is not None:
            architecture, by, who = queued.architecture, "analyst", queued.who
        elif self.state.exhausted:
            return None
        else:
            try:
                architecture, fidelity = self.adviser.ask(settings, self.steps, self.trials, self.counts)
            except (Exhausted, Infeasible) as error:
                if self._pending or number < len(self._known):
                    raise self._diverged(str(error)) from error
                self._write("exhausted", {"message": str(error)}, "search")
                return None
        proposal = Proposal(architecture, fidelity)
        if number < len(self._known):
            stored = self._known[number]
            if stored.architecture != architecture:
                text = self.space.format(architecture)
                raise self._diverged(f"the strategy proposes {text}, which is not what was evaluated")
            return Unit("trial", number, lambda: stored, architecture, by, who, settings)
        return Unit("trial", number, self._evaluation(proposal), architecture, by, who, settings)

    def _next_queued(self) -> Queued | None:
        """The next one added by hand; those that were excluded since are passed over."""
        while self.state.queue:
            queued = self.state.queue.popleft()
            if self.admits(queued.architecture):
                return queued
        return None

    def admits(self, architecture: Architecture) -> bool:
        """Whether an architecture of the space is allowed and meets the constraints."""
        settings = self.state.settings
        return is_allowed(settings.allowed, architecture.decisions) and self.adviser.costs(settings).feasible(
            architecture
        )

    def _evaluation(self, proposal: Proposal) -> Callable[[], Evaluation]:
        if self.training is not None:
            training, steps = self.training, self.steps

            def judge(architecture: Architecture) -> Evaluation:
                return training.evaluate(architecture, steps)

            return lambda: evaluated(judge, proposal, False, self._scored)
        evaluator = self._evaluator
        assert evaluator is not None
        return lambda: evaluated(evaluator, proposal, False, self._scored)

    def finish(self, unit: Unit, result: Any) -> None:
        """Take the result of a unit, which is thrown away if the search was cancelled meanwhile."""
        if unit is not self.unit:
            raise RuntimeError("this unit of work is not under way")
        self.unit = None
        if self.state.status == "cancelled":
            if unit.kind == "step" and self.training is not None:
                self.training.broken = "the search was cancelled during a step of training"
            self._tell("state")
            return
        if unit.kind == "step":
            self._finish_step(result)
        else:
            self._finish_trial(unit, result)
        self._tell("state")

    def _finish_step(self, result: Point | UserError | None) -> None:
        self.steps += 1
        phase = self.state.phase
        phase.step += 1
        self.state.exhausted = False
        self.progress = self._new_progress()  # no trial was scored with these weights
        if isinstance(result, UserError):
            if not self._pending:
                self._write("train_failed", {"message": str(result)}, "search")
            elif self._pending[0].kind != "train_failed":
                raise self._diverged(f"the training failed, and did not before: {result}")
            return
        if result is not None:
            self._keep_point(asdict(result))
        assert self.training is not None
        if phase.step >= phase.epochs * self.training.per_epoch and phase.status != "failed":
            phase.status = "idle"

    def _keep_point(self, point: dict[str, Any]) -> None:
        self.points = [each for each in self.points if each["step"] < point["step"]]
        self.points.append(point)
        if self._journal is not None:
            self._journal.put_point(point["step"], point)
        self._tell("point", point)

    def _finish_trial(self, unit: Unit, result: Any) -> None:
        assert unit.architecture is not None
        assert unit.settings is not None
        if isinstance(result, Trial):
            trial = result
            if self.training is not None and trial.evaluation.metrics.get(STEPS) != self.steps:
                raise self._diverged(f"trial {trial.number} was scored with other weights")
        else:
            trial = Trial(unit.number, unit.architecture, self._completed(unit, result))
            if self.store is not None:
                self.store.append(self.run, trial)
        self.trials.append(trial)
        self.by.append((unit.by, unit.who))
        self.seconds += trial.evaluation.seconds
        self.progress.add(trial)
        self._tell("trial", trial)

    def _completed(self, unit: Unit, result: Evaluation) -> Evaluation:
        assert unit.architecture is not None
        assert unit.settings is not None
        costs = self.adviser.costs(unit.settings)
        measured = costs(unit.architecture)
        evaluation = completed(result, self.objectives, costs, measured, unit.architecture, False)
        if self.training is not None:
            metrics = {**evaluation.metrics, STEPS: float(self.steps)}
            evaluation = replace(evaluation, metrics=metrics)
        if self.table is not None:
            evaluation = with_accuracy(evaluation, self.table, unit.architecture, False)
        return evaluation

    # ---- actions -------------------------------------------------------------------------------------

    def act(self, kind: str, *, who: str = "python", **fields: Any) -> Action:
        """Do something to the search; returns what was stored.

        Args:
            kind: See docs/design/steering_protocol.md.
            who: Whose action it is.
            fields: Of that kind.

        Raises:
            Refused: It cannot be done now; nothing has changed.
            Malformed: It is no action.
        """
        _reading.text_of(who, "who")
        read, _ = self.ready(kind, fields)
        return self._write(kind, read, who)

    def ready(self, kind: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
        """What :meth:`act` would store, and the settings afterwards; raises what it would raise."""
        if self.is_catching_up:
            raise Refused("the search is still repeating what its store says; wait until it has caught up")
        read = _reading.read(self.space, self.state.settings, kind, fields)
        return admitted(self, kind, read)

    def _write(self, kind: str, fields: dict[str, Any], who: str) -> Action:
        trial, step = self._begun_trials, self._begun_steps
        if kind == "cancel":  # what runs is thrown away: it has not begun
            trial, step = len(self.trials), self.steps
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        action = Action(len(self.actions), trial, step, kind, fields, who, now)
        if self._journal is not None:
            self._journal.append(action)
        self._do(action)
        return action

    def _do(self, action: Action) -> None:
        before = self.state.settings
        self.state.apply(action)
        self.actions.append(action)
        if action.kind in ("train", "train_stop", "stop", "cancel") and self.training is not None:
            self._end_phase_of(action)
        if before.weights != self.state.settings.weights:
            self.progress = self._new_progress(self.trials)
        self._tell("action", action)
        self._tell("state")

    def _end_phase_of(self, action: Action) -> None:
        """Forget points of steps that a killed process took and this one does not."""
        if action.kind != "train" and self._journal is not None and not self.is_catching_up:
            self.points = [point for point in self.points if point["step"] <= self._begun_steps]
            self._journal.forget_points(self._begun_steps)

    def fitness(self) -> list[BlockFitness]:
        """The fitness of every block over the trials that count, see :func:`block_fitness`."""
        found = self.progress.trials
        decisions = [trial.architecture.decisions for trial in found]
        return block_fitness(decisions, self.progress.values(), self.space.num_choices, seed=self.seed)

    def preview(self, kind: str, **fields: Any) -> dict[str, Any]:
        """What an action would do, as a JSON object: the size of the space, what it keeps and loses.

        Raises:
            Refused: What :meth:`act` would raise.
            Malformed: It is no action that can be previewed.
        """
        return preview(self, kind, fields)

    def runs(self, details: str | None = None) -> list[tuple[dict[str, Any], Sequence[Trial], list[Any]]]:
        """Facts about each run of the store, with the trials and actions of the run ``details``.

        Without a store there is this run only.
        """
        if self.store is None:
            told_of = [action_document(self, action) for action in self.actions]
            return [(self._facts(self.run, len(self.trials), len(self.actions)), self.trials, told_of)]
        found = []
        for run in self.store.runs():
            if run.id == self.run.id:
                trials: Sequence[Trial] = self.trials
                actions: Sequence[Action] = self.actions
            else:
                trials, actions = self.store.trials(run), Journal(self.store, run).actions()
            facts_of = self._facts(run, len(trials), len(actions))
            documents = [_plain(action) for action in actions] if str(run.id) == details else []
            found.append((facts_of, trials, documents))
        return found

    def _facts(self, run: Run, trials: int, actions: int) -> dict[str, Any]:
        config = run.config
        return {
            "id": run.id,
            "space": config.space,
            "strategy": config.strategy,
            "seed": config.seed,
            "objectives": list(config.objectives),
            "trials": trials,
            "actions": actions,
            "this": run.id == self.run.id,
        }

    def text(self, action: Action) -> str:
        """An action in words."""
        return told(self.labels, self.space, self.actions, action)

    def undone(self) -> set[int]:
        """Numbers of the actions that are undone at the moment."""
        return {action.number for action, _ in self.state.undone}


def _plain(action: Action) -> dict[str, Any]:
    """An action of another run, whose space is not at hand to put it in words."""
    return {
        **asdict(action),
        "fields": dict(action.fields),
        "text": action.kind.replace("_", " "),
        "undone": False,
    }


def _spec(space: SearchSpace) -> str:
    """``NAME:option=value,...``; of long options only the name."""
    found = constructor_options(space).items()
    options = ",".join(f"{name}={value}" for name, value in found if len(str(value)) <= 40)
    return f"{space.name}:{options}" if options else space.name


def _budget(value: object) -> int:
    if type(value) is not int or value < 1:
        raise Malformed(f"budget: expected a positive number of trials, got {value!r}", "budget")
    return value
