"""What a steered search is doing, and its work, one unit at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.run.evaluation import evaluated, with_accuracy
from pynas.run.objectives import completed
from pynas.steer._keeping import Keeping
from pynas.steer._progress import Progress
from pynas.steer._settings import Settings, is_allowed
from pynas.steer._state import Queued, State
from pynas.steer._strategy import Adviser
from pynas.store import DAMAGED, Action
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


class Working(ABC):
    """The part of a :class:`SteeredSearch` that works; its constructor makes everything that is named here.

    Attributes:
        space: The whole space.
        training: The supernet, or None.
        objectives: What is searched for.
        task: Sizes that costs depend on.
        adviser: Asks the strategy.
        state: What follows from the actions.
        keeping: The store.
        trials: All trials.
        by: Whose each is, and who added it.
        actions: All actions.
        steps: Steps of training that were taken, over all phases.
        unit: What is under way.
        progress: Best and front of the trials that count.
        seconds: Seconds spent in evaluations.
    """

    space: SearchSpace
    training: SupernetTraining | None
    table: Table | None
    objectives: tuple[str, ...]
    cost_names: tuple[str, ...]
    task: dict[str, int]
    adviser: Adviser
    state: State
    keeping: Keeping
    trials: list[Trial]
    by: list[tuple[str, str]]
    actions: list[Action]
    steps: int
    unit: Unit | None
    progress: Progress
    seconds: float
    _evaluator: Evaluator | None
    _hardware: tuple[HardwareModel, ...]
    _scored: list[str]
    _wanted: list[str]
    _listeners: list[Listener]
    _pending: deque[Action]

    @abstractmethod
    def _write(self, kind: str, fields: dict[str, Any], who: str) -> Action:
        """Store an action, then do it."""

    @abstractmethod
    def _do(self, action: Action) -> None:
        """Do what an action says."""

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
        return bool(self._pending) or len(self.trials) < len(self.keeping.known) or self._is_retraining

    @property
    def _is_retraining(self) -> bool:
        """Whether the next step of training was taken already: a checkpoint has what came of it."""
        phase = self.state.phase
        return (
            self._trains
            and self.training is not None
            and self.training.is_recorded(phase.number, phase.step + 1)
        )

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
        if self.begun_trials >= self.state.settings.budget:
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
    def begun_trials(self) -> int:
        """Number of trials that have begun, with the one that runs."""
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
        self.do_due()
        if self._trains:
            self.unit = self._step_unit()
        elif self._searches:
            self.unit = self._trial_unit()
        elif self._pending or len(self.trials) < len(self.keeping.known):
            raise self._diverged("nothing is to be done, and more was done")
        return self.unit

    def do_due(self) -> None:
        """Do what was done at this place, of a search that is resumed or replayed, and begin nothing."""
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
        where = self.keeping.where
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
                if self._pending or number < len(self.keeping.known):
                    raise self._diverged(str(error)) from error
                self._write("exhausted", {"message": str(error)}, "search")
                return None
        proposal = Proposal(architecture, fidelity)
        if number < len(self.keeping.known):
            stored = self.keeping.known[number]
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
            if training.at != steps:
                raise self._diverged(f"the weights are those of step {training.at}")

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
        self.keeping.put_point(point)
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
            self.keeping.append(trial)
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
