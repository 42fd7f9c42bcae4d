"""What a search is doing: the part of its state that follows from its actions alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pynas.architecture import Architecture
from pynas.steer._settings import CHANGES, Settings, combined
from pynas.store import Action

ENDED = ("stopped", "cancelled")


@dataclass(frozen=True)
class Queued:
    """An architecture that somebody added: evaluated before what the strategy proposes."""

    architecture: Architecture
    who: str


@dataclass
class Phase:
    """The training of the supernet, counted in steps.

    Attributes:
        status: ``idle``, ``running``, ``paused`` or ``failed``.
        number: Number of the phase, from 1; 0 before the first.
        step: Steps of this phase that were taken.
        epochs: Epochs of this phase.
        message: Why it failed.
    """

    status: str = "idle"
    number: int = 0
    step: int = 0
    epochs: int = 0
    message: str = ""


@dataclass
class State:
    """Settings, status, queue and phase; changed by :meth:`apply` only, and by the end of a phase.

    Attributes:
        settings: What decides about proposals.
        space: Name of the space.
        status: ``paused``, ``running``, ``stopped`` or ``cancelled``.
        exhausted: Whether the strategy has nothing new to propose with these settings.
        message: What it said then.
        queue: What was added by hand and not begun.
        phase: The training.
        done: Actions that can be undone, with the settings before each, latest last.
        undone: Actions that can be done again, with the settings after each, latest last.
    """

    settings: Settings
    space: str
    status: str = "paused"
    exhausted: bool = False
    message: str = ""
    queue: deque[Queued] = field(default_factory=deque)
    phase: Phase = field(default_factory=Phase)
    done: list[tuple[Action, Settings]] = field(default_factory=list)
    undone: list[tuple[Action, Settings]] = field(default_factory=list)

    @property
    def is_ended(self) -> bool:
        """Whether the search has ended for good."""
        return self.status in ENDED

    def after(self, kind: str, fields: Mapping[str, Any], begun: int) -> Settings:
        """The settings after an action, which is one of those that change them.

        Args:
            kind: Its kind.
            fields: Its fields.
            begun: Number of trials that have begun: no undo takes the budget below that.
        """
        if kind not in ("undo", "redo"):
            return combined(self.settings, kind, fields)
        found = (self.done if kind == "undo" else self.undone)[-1][1]
        return replace(found, budget=max(found.budget, begun))

    def apply(self, action: Action) -> None:
        """Do what an action says; it was checked when it was written."""
        kind, fields = action.kind, action.fields
        if kind in CHANGES or kind in ("undo", "redo"):
            self._change(action)
        elif kind == "add":
            self.queue.append(Queued(Architecture(self.space, tuple(fields["decisions"])), action.who))
        elif kind == "withdraw":
            gone = tuple(fields["decisions"])
            self.queue = deque(each for each in self.queue if each.architecture.decisions != gone)
        elif kind in ("pause", "resume"):
            self.status = "paused" if kind == "pause" else "running"
        elif kind in ("stop", "cancel"):
            self.status = "stopped" if kind == "stop" else "cancelled"
            if self.phase.status != "failed":
                self.phase.status = "idle"
        elif kind == "exhausted":
            self.exhausted, self.message = True, str(fields.get("message", ""))
        elif kind == "train":
            self.phase = Phase("running", self.phase.number + 1, 0, fields["epochs"])
        elif kind == "train_failed":
            self.phase.status, self.phase.message = "failed", str(fields.get("message", ""))
        else:
            self.phase.status = {"train_pause": "paused", "train_resume": "running", "train_stop": "idle"}[
                kind
            ]

    def _change(self, action: Action) -> None:
        before, after = self.settings, self.after(action.kind, action.fields, action.trial)
        if action.kind == "undo":
            self.undone.append((self.done.pop()[0], before))
        elif action.kind == "redo":
            self.done.append((self.undone.pop()[0], before))
        elif action.number:  # the first one is the budget that the search began with
            self.done.append((action, before))
            self.undone.clear()
        self.settings = after
        if (before.allowed, before.bounds, before.strategy, before.options, before.weights) != (
            after.allowed,
            after.bounds,
            after.strategy,
            after.options,
            after.weights,
        ):
            self.exhausted, self.message = False, ""
