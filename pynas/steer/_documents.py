"""What a page is told, as JSON objects; docs/design/steering_protocol.md describes each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pynas import strategies
from pynas.steer._admission import can
from pynas.steer._settings import CHANGES, Malformed, Settings, is_allowed, pairs, space_of
from pynas.steer._texts import block_text, phrase, told
from pynas.store import Action
from pynas.trial import Status, Trial

if TYPE_CHECKING:
    from pynas.steer._map import CandidateMap
    from pynas.steer.search import SteeredSearch

PROTOCOL = 1
_SAMPLES = 2000
_BEST = 10
_REMEMBERED = 64


def state_document(search: SteeredSearch) -> dict[str, Any]:
    """The state of a search, without what only its server knows."""
    state, settings, space = search.state, search.state.settings, search.space
    size, exact = remaining(search, settings)
    unit = search.unit if search.unit is not None and search.unit.kind == "trial" else None
    best = search.progress.best
    return {
        "protocol": PROTOCOL,
        "store": None if search.store is None else search.store.location.removeprefix("store "),
        "run": search.run.id,
        "seed": search.seed,
        "space": {
            "name": space.name,
            "spec": search.spec,
            "summary": space.summary,
            "decisions": len(space.num_choices),
            "size": None if space.size is None else str(space.size),
            "remaining": size,
            "exact": exact,
        },
        "allowed": settings.allowed,
        "search": {
            "status": search.status,
            "waiting": search.waiting,
            "message": state.message,
            "trials": len(search.trials),
            "budget": settings.budget,
            "running": None
            if unit is None or unit.architecture is None
            else {
                "number": unit.number,
                "decisions": unit.architecture.decisions,
                "text": space.format(unit.architecture),
                "by": unit.by,
            },
            "strategy": settings.strategy,
            "strategy_options": dict(settings.options),
            "objectives": search.objectives,
            "weights": None if settings.weights is None else dict(settings.weights),
            "constraints": dict(settings.bounds),
            "queue": [
                {
                    "decisions": queued.architecture.decisions,
                    "text": space.format(queued.architecture),
                    "who": queued.who,
                }
                for queued in state.queue
            ],
            "best": None if best is None else best.number,
            "front": [trial.number for trial in search.progress.front],
            "seconds": round(search.seconds, 3),
        },
        "training": _training(search),
        "can": can(search),
        "undo": _stacked(search, state.done),
        "redo": _stacked(search, state.undone),
    }


def _training(search: SteeredSearch) -> dict[str, Any] | None:
    if search.training is None:
        return None
    phase = search.state.phase
    return {
        "status": phase.status,
        "steps": search.steps,
        "phase": phase.number,
        "phase_step": phase.step,
        "phase_steps": phase.epochs * search.training.per_epoch,
        "epochs": phase.epochs,
        "message": phase.message,
    }


def _stacked(search: SteeredSearch, stack: list[tuple[Action, Settings]]) -> dict[str, Any] | None:
    return {"action": stack[-1][0].number, "text": search.text(stack[-1][0])} if stack else None


def offers() -> dict[str, Any]:
    """Names of strategies and their options."""
    found = []
    for name in strategies.REGISTRY.working():
        known = {k: v for k, v in strategies.options(name).items() if isinstance(v, (bool, int, float, str))}
        found.append({"name": name, "options": known})
    return {"strategies": found}


def remaining(search: SteeredSearch, settings: Settings) -> tuple[str | None, bool]:
    """Number of architectures that are allowed, as text, and whether it is exact; None if unknown."""
    if settings.allowed in search.sizes:
        return search.sizes[settings.allowed]
    if len(search.sizes) > _REMEMBERED:
        search.sizes.clear()
    found = search.sizes[settings.allowed] = _remaining(search, settings)
    return found


def _remaining(search: SteeredSearch, settings: Settings) -> tuple[str | None, bool]:
    present = settings.allowed == search.state.settings.allowed
    space = search.allowed_space if present else space_of(search.space, settings.allowed)
    if space.size is not None:
        return str(space.size), True
    product = math.prod(map(len, settings.allowed))
    rng = np.random.default_rng(0)
    drawn = zip(*(rng.choice(choices, _SAMPLES).tolist() for choices in settings.allowed), strict=True)
    valid = sum(map(search.space.is_valid, drawn))
    return (None if not valid else str(product * valid // _SAMPLES)), False


def trial_documents(
    search: SteeredSearch, points: CandidateMap, trials: Iterable[Trial]
) -> list[dict[str, Any]]:
    """Trials with their values among those that count now."""
    progress, values = search.progress, {}
    if progress.ranks:  # otherwise a trial's value follows from it alone
        values = {t.number: v for t, v in zip(progress.trials, progress.values(), strict=True)}
    return [_trial(search, points, trial, values) for trial in trials]


def _trial(
    search: SteeredSearch, points: CandidateMap, trial: Trial, values: Mapping[int, float]
) -> dict[str, Any]:
    by, who = search.by[trial.number]
    number = points.locate(trial.architecture)
    evaluation = trial.evaluation
    value = values.get(trial.number)
    if value is None and evaluation.status is Status.OK:
        value = search.progress.single(trial)
    return {
        "number": trial.number,
        "decisions": trial.architecture.decisions,
        "text": search.space.format(trial.architecture),
        **finite(evaluation.to_dict()),
        "by": by,
        "who": who,
        "value": value,
        "current": search.counts(trial),
        "allowed": is_allowed(search.state.settings.allowed, trial.architecture.decisions),
        "candidate": {"id": number, "x": points.places[number][0], "y": points.places[number][1]},
    }


def action_document(search: SteeredSearch, action: Action) -> dict[str, Any]:
    """An action, and whether it is undone now."""
    return {
        "number": action.number,
        "kind": action.kind,
        "fields": dict(action.fields),
        "who": action.who,
        "time": action.time,
        "trial": action.trial,
        "step": action.step,
        "text": told(search.labels, search.space, search.actions, action),
        "undone": action.number in search.undone(),
    }


def map_document(search: SteeredSearch, points: CandidateMap) -> dict[str, Any]:
    """The columns of the map."""
    newest: list[int | None] = [None] * len(points)
    for trial in search.trials:
        number = points.locate(trial.architecture)
        if number == len(newest):
            newest.append(None)
        newest[number] = trial.number
    return {
        "method": "pca",
        "explained": [round(share, 4) for share in points.explained],
        "decisions_per": len(search.space.num_choices),
        "x": [x for x, _ in points.places],
        "y": [y for _, y in points.places],
        "decisions": [decision for arch in points.architectures for decision in arch.decisions],
        "trial": newest,
    }


def preview(search: SteeredSearch, kind: object, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an action would do to the space, and to what is known.

    Raises:
        Malformed: It is no action that can be previewed.
        Refused: What the action itself would answer.
    """
    if kind not in CHANGES and kind not in ("undo", "redo"):
        raise Malformed(f"kind: expected one of {', '.join(CHANGES)}, undo, redo, got {kind!r}", "kind")
    assert isinstance(kind, str)
    told_fields, after = search.ready(kind, fields)
    before_size, exact_before = remaining(search, search.state.settings)
    after_size, exact_after = remaining(search, after)
    costs = search.costs_with(after.bounds)
    values = search.progress.values()
    ranked = sorted(
        zip(search.progress.trials, values, strict=True), key=lambda each: (-each[1], each[0].number)
    )

    def keeps(trial: Trial) -> bool:
        return is_allowed(after.allowed, trial.architecture.decisions) and costs.feasible(trial.architecture)

    kept = [keeps(trial) for trial, _ in ranked]
    best = [
        {"trial": trial.number, "value": value, "kept": keep}
        for (trial, value), keep in zip(ranked[:_BEST], kept[:_BEST], strict=True)
    ]
    return {
        "text": _preview_text(search, kind, told_fields),
        "before": before_size,
        "after": after_size,
        "exact": exact_before and exact_after,
        "allowed": after.allowed,
        "kept": sum(kept),
        "lost": len(kept) - sum(kept),
        "best": best,
        "notes": _notes(search, kind, told_fields, after, ranked, kept),
    }


def _preview_text(search: SteeredSearch, kind: str, fields: Mapping[str, Any]) -> str:
    if kind in ("undo", "redo"):
        return f"{kind}: {search.text(search.actions[fields['of']])}"
    return phrase(search.labels, search.space, kind, fields)


def _notes(
    search: SteeredSearch,
    kind: str,
    fields: Mapping[str, Any],
    after: Settings,
    ranked: list[tuple[Trial, float]],
    kept: list[bool],
) -> list[str]:
    notes = []
    if ranked and not kept[0]:
        notes.append(f"the best known architecture, trial {ranked[0][0].number}, is lost")
    if ranked and not any(kept):
        notes.append("no evaluated architecture is left")
    gone = [
        queued.architecture
        for queued in search.state.queue
        if not is_allowed(after.allowed, queued.architecture.decisions)
    ]
    if gone:
        notes.append(f"{len(gone)} added by hand would not be evaluated")
    if kind in ("forbid", "force", "forbid_common", "fix"):
        thin = {each.id: each for each in search.fitness() if each.thin}
        notes += [
            f"evidence is thin: {block_text(search.labels, *pairs([block])[0])} (n = {thin[block].n})"
            for block in fields["blocks"]
            if block in thin
        ]
    return notes


def finite(value: Any) -> Any:
    """JSON without NaN and infinities: None in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
