"""A small search to steer: no training, thousands of trials a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pynas.architecture import Architecture
from pynas.spaces import NASBench201
from pynas.steer import SteeredSearch
from pynas.store import Action
from pynas.trial import Evaluation, Status

SPACE = NASBench201(channels=2, num_cells=1)
CELL = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
Plan = Mapping[int, Sequence[tuple[str, dict[str, Any]]]]

PLAN: Plan = {
    0: [("resume", {})],
    5: [("forbid", {"blocks": ["0:0", "3:1"]})],
    12: [("add", {"decisions": [1, 1, 1, 2, 1, 1]}), ("strategy", {"name": "random"})],
    20: [("undo", {})],
    25: [("constraints", {"bounds": {"params": 3000}}), ("weights", {"weights": {"s": 2.0}})],
    30: [("budget", {"trials": 45}), ("fix", {"candidates": [[1, 2, 3, 4, 0, 1], [1, 2, 3, 4, 1, 1]]})],
}
"""What somebody does before which trial."""


def score(arch: Architecture) -> Evaluation:
    """Any numbers that follow from the decisions; some fail."""
    total = sum(decision * (i + 1) for i, decision in enumerate(arch.decisions))
    if total % 13 == 5:
        return Evaluation(Status.FAILED, message="planted failure")
    return Evaluation(Status.OK, {"s": float(total % 17 + arch.decisions[0])})


def steered(store: Path | None = None, **options: Any) -> SteeredSearch:
    given = {"objectives": ["s"], "budget": 40, "seed": 3, "store": store} | options
    return SteeredSearch(SPACE, score, **given)


def follow(search: SteeredSearch, plan: Plan = PLAN, stop: Callable[[], bool] = lambda: False) -> None:
    """Do what is planned and was not done yet, at its trial, until there is nothing to do."""
    while not stop():
        number = len(search.trials)
        if not search.is_catching_up:
            done = {(action.trial, action.kind) for action in search.actions}
            for kind, fields in plan.get(number, ()):
                if (number, kind) not in done:
                    search.act(kind, **fields)
        if not search.advance():
            return


def outcome(search: SteeredSearch) -> dict[str, Any]:
    """Everything that two searches must have in common; clocks differ."""
    return {
        "trials": [
            (t.architecture, t.evaluation.status, dict(t.evaluation.scores), dict(t.evaluation.metrics))
            for t in search.trials
        ],
        "by": search.by,
        "actions": [timeless(action) for action in search.actions],
        "settings": search.state.settings,
        "status": search.state.status,
        "exhausted": search.state.exhausted,
        "queue": list(search.state.queue),
        "phase": search.state.phase,
        "done": [(timeless(action), settings) for action, settings in search.state.done],
        "undone": [(timeless(action), settings) for action, settings in search.state.undone],
        "steps": search.steps,
        "points": [point for point in search.points if point["step"] <= search.steps],
        "best": None if search.progress.best is None else search.progress.best.number,
        "front": [trial.number for trial in search.progress.front],
    }


def timeless(action: Action) -> Action:
    return replace(action, time="")
