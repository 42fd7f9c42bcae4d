"""Whether an action can be done now: every refusal of a steered search, with its reason."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.spaces import SearchSpace
from pynas.steer._reading import first_empty
from pynas.steer._settings import CHANGES, Refused, Settings, is_allowed

if TYPE_CHECKING:
    from pynas.steer.search import SteeredSearch

_LISTED = 100_000
_SAMPLES = 10_000
_SECONDS = 3.0
"""Looking for one architecture that meets the constraints takes no longer; somebody waits for the answer."""

_TRAIN = {
    "train": (("idle", "failed"), "a phase of training is open; end it first"),
    "train_pause": (("running",), "no training runs"),
    "train_resume": (("paused",), "no training is paused"),
    "train_stop": (("running", "paused"), "no training is open"),
}


def admitted(search: SteeredSearch, kind: str, fields: dict[str, Any]) -> tuple[dict[str, Any], Settings]:
    """The fields as they are stored, and the settings afterwards.

    Args:
        search: The search.
        kind: A kind of action.
        fields: Its fields, read.

    Raises:
        Refused: It cannot be done now.
    """
    state = search.state
    if state.is_ended:
        raise Refused(f"the search was {state.status}; it has ended, and nothing can change it")
    if kind in CHANGES or kind in ("undo", "redo"):
        return _change(search, kind, fields)
    if kind in _TRAIN:
        _check_training(search, kind)
    elif kind == "pause" and state.status != "running":
        raise Refused("the search is paused already")
    elif kind == "resume" and state.status != "paused":
        raise Refused("the search runs already")
    elif kind == "add":
        _check_addition(search, Architecture(search.space.name, tuple(fields["decisions"])))
    elif kind == "withdraw":
        queued = [list(each.architecture.decisions) for each in state.queue]
        if fields["decisions"] not in queued:
            raise Refused("it is not waiting: it was never added, or has begun")
    return fields, state.settings


def can(search: SteeredSearch) -> dict[str, bool]:
    """Which controls would not be refused now."""
    state = search.state
    live = not state.is_ended and not search.is_catching_up
    phase = state.phase.status if search.training is not None else ""
    trains = {kind: live and phase in statuses for kind, (statuses, _) in _TRAIN.items()}
    return {
        "pause": live and state.status == "running",
        "resume": live and state.status == "paused",
        "stop": live,
        "cancel": live,
        **trains,
        "undo": live and bool(state.done),
        "redo": live and bool(state.undone),
        "export": bool(search.trials),
    }


def _check_training(search: SteeredSearch, kind: str) -> None:
    if search.training is None:
        raise Refused("nothing is trained here: candidates are scored without a supernet")
    statuses, reason = _TRAIN[kind]
    if search.state.phase.status not in statuses:
        raise Refused(reason)


def _check_addition(search: SteeredSearch, architecture: Architecture) -> None:
    settings, text = search.state.settings, search.space.format(architecture)
    for decision, (choice, allowed) in enumerate(zip(architecture.decisions, settings.allowed, strict=True)):
        if choice not in allowed:
            label = search.labels[decision]
            raise Refused(
                f"{text}: {label.choices[choice].label} on {label.label} is forbidden; allow it first"
            )
    costs = search.adviser.costs(settings)
    if not costs.feasible(architecture):
        measured = costs(architecture)
        over = [
            f"{name} {measured[name]:,.4g} > {bound:,.4g}"
            for name, bound in settings.bounds.items()
            if not measured[name] <= bound
        ]
        raise Refused(f"{text} does not meet the constraints: {', '.join(over)}")
    if any(queued.architecture == architecture for queued in search.state.queue):
        raise Refused(f"{text} is waiting already")
    if search.unit is not None and search.unit.architecture == architecture:
        raise Refused(f"{text} is being evaluated")
    for trial in reversed(search.trials):
        if trial.architecture == architecture and search.counts(trial):
            raise Refused(f"{text} is trial {trial.number} already")
    if search.begun_trials + len(search.state.queue) >= settings.budget:
        raise Refused(f"the budget of {counted(settings.budget, 'trial')} is spent; raise it first")


def _change(search: SteeredSearch, kind: str, fields: dict[str, Any]) -> tuple[dict[str, Any], Settings]:
    state, before = search.state, search.state.settings
    if kind in ("undo", "redo"):
        stack = state.done if kind == "undo" else state.undone
        if not stack:
            raise Refused(f"there is nothing to {kind}")
        last = stack[-1][0].number
        if fields.get("of", last) != last:
            raise Refused(
                f"{kind}: action {fields['of']} is not the last one any more: "
                f"{search.text(stack[-1][0])} is; look again"
            )
        fields = {"of": last}
    if kind in ("forbid", "forbid_common"):
        fields = _still_allowed(before, fields)
    begun = search.begun_trials
    after = state.after(kind, fields, begun)
    empty = first_empty(after.allowed)
    if empty is not None:
        raise Refused(
            f"{search.labels[empty].label}: its last choice cannot be forbidden; allow another first"
        )
    if after.budget < begun:
        raise Refused(f"{counted(begun, 'trial')} have begun; the budget cannot be {after.budget:,}")
    if kind == "weights" and fields["weights"] is not None:
        _check_weights(search, fields["weights"])
    if after == before and kind not in ("undo", "redo"):  # what lies under it has to be reached
        raise Refused("that changes nothing")
    if (after.allowed, after.bounds) != (before.allowed, before.bounds):
        after = _possible(search, before, after)
        if kind == "constraints":
            fields = {"bounds": dict(after.bounds)}
    if (after.strategy, after.options, after.weights) != (before.strategy, before.options, before.weights):
        search.adviser.make(after, 0, search.costs_with(after.bounds))
    return fields, after


def _still_allowed(settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Only those blocks that are not forbidden already."""
    kept = []
    for block in fields["blocks"]:
        decision, _, choice = block.partition(":")
        if int(choice) in settings.allowed[int(decision)]:
            kept.append(block)
    if not kept:
        raise Refused("that is forbidden already")
    return {**fields, "blocks": kept}


def _check_weights(search: SteeredSearch, weights: Mapping[str, float]) -> None:
    if set(weights) != set(search.objectives):
        raise Refused(
            f"weights: expected one for each of {', '.join(search.objectives)}, got "
            f"{', '.join(weights) or 'none'}"
        )
    if not any(weights.values()):
        raise Refused("weights: expected at least one that is not zero")


def _possible(search: SteeredSearch, before: Settings, after: Settings) -> Settings:
    """The settings with readable bounds, if at least one architecture is left that meets them."""
    try:
        costs = search.costs_with(after.bounds)
        space = search.adviser.space(after) if after.allowed != before.allowed else search.allowed_space
    except UserError as error:
        raise Refused(str(error)) from None
    known = [
        trial.architecture
        for trial in search.trials
        if is_allowed(after.allowed, trial.architecture.decisions)
    ]
    problem = _none_of(space, costs, known)
    if problem:
        told = f" ({costs.explain()})" if costs.bounds else ""
        raise Refused(f"no architecture would be left: {problem}{told}")
    return replace(after, bounds=dict(costs.bounds))


def _none_of(space: SearchSpace, costs: Costs, known: Iterable[Architecture]) -> str:
    """Why no architecture is feasible; empty if one is."""
    if not costs.bounds and space.size:
        return ""
    if any(map(costs.feasible, known)):
        return ""
    end = time.monotonic() + _SECONDS
    rng = random.Random(0)
    tried = 0
    for tried in range(1, _SAMPLES + 1):
        try:
            architecture = space.sample(rng)
        except (UserError, RuntimeError) as error:
            return str(error)
        if costs.feasible(architecture):
            return ""
        if tried >= 200 and space.size is not None and space.size <= _LISTED:
            return _none_listed(space, costs.feasible, end)
        if time.monotonic() > end:
            break
    return f"none of {counted(tried, 'architecture')} that were drawn meets the constraints"


def _none_listed(space: SearchSpace, feasible: Callable[[Architecture], bool], end: float) -> str:
    for number, architecture in enumerate(space.all()):
        if feasible(architecture):
            return ""
        if time.monotonic() > end + _SECONDS:
            return f"none of the first {number + 1:,} meets the constraints"
    return f"none of all {space.size or 0:,} meets the constraints"
