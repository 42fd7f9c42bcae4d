"""A search that can be steered while it runs: its state, what happens in it, and what can be done to it."""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynas import spaces
from pynas._errors import UserError, UserNotice
from pynas.hardware.costs import Costs
from pynas.hardware.model import cautions
from pynas.run.identity import identity_of
from pynas.run.loop import default_evaluator, task_of
from pynas.run.objectives import checked, split
from pynas.spaces.identity import constructor_options
from pynas.steer import _reading
from pynas.steer._admission import admitted
from pynas.steer._blocks import BlockFitness, block_fitness
from pynas.steer._documents import preview
from pynas.steer._keeping import Keeping
from pynas.steer._labels import labels_of
from pynas.steer._settings import Allowed, Malformed, Refused, Settings, everything
from pynas.steer._state import State
from pynas.steer._strategy import Adviser
from pynas.steer._texts import told
from pynas.steer._working import STEPS, Unit, Working
from pynas.store import Action, Run, Store
from pynas.trial import Evaluator, Trial

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.steer._training import SupernetTraining
    from pynas.tables import Table

__all__ = ["START", "STEPS", "SteeredSearch", "Unit"]

START = "start"
"""Whose actions those are that begin a search."""


class SteeredSearch(Working):
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
        check_blocks(self.space)
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
        for caution in cautions(self._hardware, None if table is None else table.dataset):
            warnings.warn(caution, UserNotice, stacklevel=2)
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
        self.trials = []
        self.by = []
        self.actions = []
        self.steps = 0
        self.unit = None
        self.seconds = 0.0
        self._listeners = []
        self._exit = contextlib.ExitStack()
        self._pending = deque(script)
        self.progress = self._new_progress()
        try:
            self.keeping = Keeping(store, identity, resume, self.space.check, self._exit)
            self._exit.enter_context(identity.in_use())
            self._open(self.keeping, resume, checkpoints)
        except BaseException:
            self._exit.close()
            raise
        if not self._pending and not self.actions:
            self._write("budget", {"trials": _budget(budget)}, START)

    # ---- beginning and end ---------------------------------------------------------------------------

    def _open(self, keeping: Keeping, resume: bool, checkpoints: str | os.PathLike[str] | None) -> None:
        if keeping.did and self._pending:
            raise UserError(f"{keeping.where}it has actions already, so none are replayed")
        self._pending.extend(keeping.did)
        if self.training is not None:
            folder = keeping.folder() if checkpoints is None else Path(checkpoints)
            self.training.use_folder(folder, resume=resume)

    @property
    def store(self) -> Store | None:
        """The store, if there is one."""
        return self.keeping.store

    @property
    def run(self) -> Run:
        """The run: its configuration, and its number in the store."""
        return self.keeping.run

    @property
    def points(self) -> list[dict[str, Any]]:
        """Points of the training's curve."""
        return self.keeping.points

    def close(self) -> None:
        """Close the store; everything is in it already."""
        if self.training is not None:
            self.training.close()
        self._exit.close()

    def __enter__(self) -> SteeredSearch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
        trial, step = self.begun_trials, self._begun_steps
        if kind == "cancel":  # what runs is thrown away: it has not begun
            trial, step = len(self.trials), self.steps
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        action = Action(len(self.actions), trial, step, kind, fields, who, now)
        self.keeping.act(action)
        self._do(action)
        return action

    def _do(self, action: Action) -> None:
        before = self.state.settings
        self.state.apply(action)
        self.actions.append(action)
        if action.kind == "exhausted":
            self.adviser.renew()
        if action.kind in ("train", "train_stop", "stop", "cancel") and self.training is not None:
            self._end_phase_of(action)
        if before.weights != self.state.settings.weights:
            self.progress = self._new_progress(self.trials)
        self._tell("action", action)
        self._tell("state")

    def _end_phase_of(self, action: Action) -> None:
        if action.kind != "train" and not self.is_catching_up:
            self.keeping.forget_points(self._begun_steps)

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
        """Facts about each run of the store, with the trials and actions of the run ``details``."""
        return self.keeping.runs(self.trials, self.actions, details)

    def text(self, action: Action) -> str:
        """An action in words."""
        return told(self.labels, self.space, self.actions, action)

    def undone(self) -> set[int]:
        """Numbers of the actions that are undone at the moment."""
        return {action.number for action, _ in self.state.undone}


def check_blocks(space: SearchSpace) -> None:
    """Raise UserError for a space whose architectures are not made of blocks with fixed places."""
    if not space.num_choices:
        raise UserError(
            f"space: {space.name} has no fixed number of decisions, so it has no blocks to forbid or to "
            "force; expected a space that has, such as nasbench201, proxylessnas or template:FILE; "
            f"pynas search takes {space.name} as it is"
        )


def _spec(space: SearchSpace) -> str:
    """``NAME:option=value,...``; of long options only the name."""
    found = constructor_options(space).items()
    options = ",".join(f"{name}={value}" for name, value in found if len(str(value)) <= 40)
    return f"{space.name}:{options}" if options else space.name


def _budget(value: object) -> int:
    if type(value) is not int or value < 1:
        raise Malformed(f"budget: expected a positive number of trials, got {value!r}", "budget")
    return value
