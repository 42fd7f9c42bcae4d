"""What a steered search keeps in its store: trials, actions, and the curve of its training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pynas._errors import UserError
from pynas._io import provenance as facts
from pynas.architecture import Architecture
from pynas.run.identity import Identity
from pynas.store import SCHEMA_VERSION, Action, Journal, Run, Store
from pynas.trial import Trial


class Keeping:
    """The run of a steered search in a store, or in memory only.

    Attributes:
        store: The store, or None.
        run: The run.
        known: Trials that the store had at the beginning.
        did: Actions that it had.
        points: Points of the training's curve.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store | None,
        identity: Identity,
        resume: bool,
        check: Callable[[Architecture], object],
        closing: ExitStack,
    ) -> None:
        self.store: Store | None = None
        self._journal: Journal | None = None
        self.run = Run(None, identity.config, facts.collect())
        self.known: tuple[Trial, ...] = ()
        self.did: tuple[Action, ...] = ()
        self.points: list[dict[str, Any]] = []
        if store is None:
            return
        opened = store if isinstance(store, Store) else closing.enter_context(Store(store))
        self.store = opened
        config = identity.in_store(opened, resume)
        self.run = opened.start(config, facts.collect() | {"schema": SCHEMA_VERSION}, resume=resume)
        self._journal = Journal(opened, self.run, write=True)
        self.known = opened.trials(self.run, check=check)
        self.did = self._journal.actions()
        self.points = list(self._journal.points())

    @property
    def where(self) -> str:
        """The beginning of a message about this run; empty in memory."""
        return "" if self.store is None else f"{self.store.location}: run {self.run.id}: "

    def folder(self) -> Path | None:
        """Where the checkpoints of the training are: beside the file of the store.

        Raises:
            UserError: The store is no file.
        """
        if self.store is None:
            return None
        file = self.store.file
        if file is None:
            raise UserError("checkpoints: the store is no file, so give a folder for them")
        return file.with_name(f"{file.name}.weights") / f"run-{self.run.id}"

    def append(self, trial: Trial) -> None:
        """Keep a trial."""
        if self.store is not None:
            self.store.append(self.run, trial)

    def act(self, action: Action) -> None:
        """Keep an action."""
        if self._journal is not None:
            self._journal.append(action)

    def put_point(self, point: dict[str, Any]) -> None:
        """Keep a point, in place of those of this step and later, of a process that was killed."""
        self.points = [each for each in self.points if each["step"] < point["step"]]
        self.points.append(point)
        if self._journal is not None:
            self._journal.put_point(point["step"], point)

    def forget_points(self, after: int) -> None:
        """Forget points of steps that a killed process took and this one does not."""
        self.points = [point for point in self.points if point["step"] <= after]
        if self._journal is not None:
            self._journal.forget_points(after)

    def runs(
        self, trials: Sequence[Trial], actions: Sequence[Action], details: str | None
    ) -> list[tuple[dict[str, Any], Sequence[Trial], list[dict[str, Any]]]]:
        """Facts about each run of the store, with the trials and actions of the run ``details`` only.

        Args:
            trials: Of this run.
            actions: Of this run.
            details: Number of a run, as text.
        """
        runs = (self.run,) if self.store is None else self.store.runs()
        found: list[tuple[dict[str, Any], Sequence[Trial], list[dict[str, Any]]]] = []
        for run in runs:
            is_wanted = str(run.id) == details
            if self.store is None or run.id == self.run.id:
                its_trials, its_actions = trials, actions
            elif is_wanted:
                its_trials, its_actions = self.store.trials(run), Journal(self.store, run).actions()
            else:
                counts = self.store.count(run), Journal(self.store, run).count()
                found.append((self._facts(run, *counts), (), []))
                continue
            facts = self._facts(run, len(its_trials), len(its_actions))
            documents = [_plain(action) for action in its_actions] if is_wanted else []
            found.append((facts, its_trials if is_wanted else (), documents))
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


def _plain(action: Action) -> dict[str, Any]:
    """An action of any run, whose space need not be at hand to put it in words."""
    fields: Mapping[str, Any] = action.fields
    text = action.kind.replace("_", " ")
    return {**asdict(action), "fields": dict(fields), "text": text, "undone": False}
