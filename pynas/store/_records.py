"""Converts values to database rows and back; reading a row validates all of it.

JSON objects contain a checksum over themselves and what they belong to, so that a changed digit is noticed;
those of earlier versions have none. A run has its key, the hash of its configuration.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from pynas._errors import UserError
from pynas._io import strict_json
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.store._values import Action, Run, RunConfig, to_json
from pynas.trial import Evaluation, Status, Trial

_SUM = "pynas_sum"
_LARGEST = 2**63 - 1  # largest value of a 64-bit column


class DamageError(ValueError):
    """A row is damaged; the store adds where it is and what to do."""


def run_columns(config: RunConfig, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a run.

    Raises:
        UserError: A database cannot hold the seed or one of the names.
    """
    if not -_LARGEST - 1 <= config.seed <= _LARGEST:
        raise UserError(f"seed: a store holds integers of 64 bits, got {config.seed}")
    for what in ("space", "strategy"):
        name = getattr(config, what)
        if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
            raise UserError(f"{what}: a store cannot hold the name {name!r}")
    return {
        "key": config.key(),
        "space": config.space,
        "strategy": config.strategy,
        "seed": config.seed,
        "objectives": to_json(config.objectives),
        "constraints": to_json(config.constraints),
        "config": to_json(config.config),
        "provenance": _with_sum(provenance, config.key()),
    }


def run_of(row: Any) -> Run:
    """The run of a row of ``runs``.

    Raises:
        DamageError: The row is not as it was written.
    """
    config = RunConfig(
        space=_text(row.space, "space"),
        strategy=_text(row.strategy, "strategy"),
        seed=_integer(row.seed, "seed"),
        objectives=tuple(_text(name, "an objective") for name in _value(row.objectives, "objectives", list)),
        constraints={
            name: _finite(bound, f"the bound on {name}")
            for name, bound in _value(row.constraints, "constraints", dict).items()
        },
        config=_value(row.config, "config", dict),
    )
    provenance = _summed(row.provenance, "provenance", _text(row.key, "key"))
    sessions = provenance.get("resumed", [])
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise DamageError("its provenance: 'resumed' is no list of objects")
    if not config.objectives:
        raise DamageError("it has no objectives")
    if row.key != config.key():
        raise DamageError("its configuration is not the one that it was written with")
    return Run(_integer(row.id, "number"), config, provenance)


def trial_columns(run: Run, trial: Trial) -> dict[str, Any]:
    """The columns of a trial.

    Raises:
        ValueError: It could not be read again: the trial is of another space, or lacks a score although its
            status is ok.
    """
    _check_trial(trial.number, trial.architecture, trial.evaluation, run.config)
    architecture = trial.architecture.to_json()
    return {
        "run": run.id,
        "number": trial.number,
        "architecture": architecture,
        "evaluation": _with_sum(trial.evaluation.to_dict(), trial.number, architecture),
    }


def trial_of(row: Any, expected: int, config: RunConfig) -> Trial:
    """The trial of a row of ``trials``, which must have the number ``expected``.

    Raises:
        DamageError: The row is not as it was written, or is of another trial.
    """
    number = _integer(row.number, "number")
    if number != expected:
        raise DamageError(f"the next one has the number {number}")
    record = _value(row.architecture, "architecture", dict)
    decisions = record.get("decisions")
    if not isinstance(decisions, list) or not all(type(decision) is int for decision in decisions):
        raise DamageError("the decisions of its architecture are no list of integers")
    architecture = Architecture(_text(record.get("space"), "architecture's space"), tuple(decisions))
    evaluation = _evaluation(_summed(row.evaluation, "evaluation", number, row.architecture))
    _check_trial(number, architecture, evaluation, config)
    return Trial(number, architecture, evaluation)


def state_columns(run: Run, number: int, state: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a strategy's state after ``number`` trials; ValueError if it is not a JSON value."""
    return {"run": run.id, "number": number, "state": _with_sum(state, number)}


def state_of(row: Any) -> tuple[int, dict[str, Any]]:
    """Number of trials, and state, of a row of ``states`` joined with the number of ``trials``.

    Raises:
        DamageError: The row is not as it was written.
    """
    number = _integer(row.number, "number of trials")
    if not 0 < number <= row.trials:
        raise DamageError(f"it is the state after {counted(number, 'trial')}, but there are {row.trials:,}")
    return number, _summed(row.state, "state", number)


def action_columns(run: Run, action: Action) -> dict[str, Any]:
    """The columns of an action; ValueError if its fields are not a JSON object."""
    return {
        "run": run.id,
        "number": action.number,
        "trial": action.trial,
        "step": action.step,
        "kind": action.kind,
        "who": action.who,
        "time": action.time,
        "fields": _with_sum(action.fields, *_facts(action)),
    }


def action_of(row: Any, expected: int) -> Action:
    """The action of a row of ``actions``, which must have the number ``expected``.

    Raises:
        DamageError: The row is not as it was written, or is of another action.
    """
    number, trial, step = (_integer(getattr(row, name), name) for name in ("number", "trial", "step"))
    if number != expected:
        raise DamageError(f"the next one has the number {number}")
    if min(trial, step) < 0:
        raise DamageError(f"it is before trial {trial} and step {step}")
    kind, who, time = (_text(getattr(row, name), name) for name in ("kind", "who", "time"))
    bare = Action(number, trial, step, kind, {}, who, time)
    return replace(bare, fields=_summed(row.fields, "fields", *_facts(bare)))


def _facts(action: Action) -> tuple[object, ...]:
    return action.number, action.trial, action.step, action.kind, action.who, action.time


def point_columns(run: Run, step: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a point of a training's curve."""
    return {"run": run.id, "step": step, "point": _with_sum(point, step)}


def point_of(row: Any) -> dict[str, Any]:
    """The point of a row of ``curves``; DamageError if it is not as it was written."""
    return _summed(row.point, "point", _integer(row.step, "step"))


def _check_trial(number: int, architecture: Architecture, evaluation: Evaluation, config: RunConfig) -> None:
    if number < 0:
        raise DamageError(f"its number is {number}")
    if architecture.space != config.space:
        raise DamageError(f"its architecture is of space {architecture.space!r}, not {config.space!r}")
    if evaluation.status is Status.OK:
        for name in config.objectives:
            if not math.isfinite(evaluation.scores.get(name, math.nan)):
                raise DamageError(f"its status is ok, and it has no score {name!r}")


def _evaluation(record: Mapping[str, Any]) -> Evaluation:
    missing = [name for name in ("status", "scores", "metrics", "message", "seconds") if name not in record]
    if missing:
        raise DamageError(f"its evaluation has no {', '.join(missing)}")
    if record["status"] not in list(Status):
        raise DamageError(f"its status is {reprlib.repr(record['status'])}, none of {', '.join(Status)}")
    for name in ("scores", "metrics"):
        if not isinstance(record[name], dict):
            raise DamageError(f"its {name} are no object")
        for key, value in record[name].items():
            if value is not None:
                _finite(value, f"{key} of its {name}")
    _text(record["message"], "message")
    _text(record.get("traceback", ""), "traceback")
    if _finite(record["seconds"], "seconds") < 0:
        raise DamageError(f"its seconds are {record['seconds']}")
    return Evaluation.from_dict(record)


def _with_sum(record: Mapping[str, Any], *belongs_to: object) -> str:
    """JSON of the record with a checksum over it and the values that it belongs to."""
    return to_json({**record, _SUM: _sum(to_json(record), belongs_to)})


def _summed(text: object, what: str, *belongs_to: object) -> dict[str, Any]:
    """The record that :func:`_with_sum` wrote, without its checksum; earlier versions have none."""
    record: dict[str, Any] = _value(text, what, dict)
    if _SUM in record and record.pop(_SUM) != _sum(to_json(record), belongs_to):
        raise DamageError(f"its {what} does not have the sum that it was written with")
    return record


def _sum(text: str, belongs_to: tuple[object, ...]) -> str:
    return hashlib.sha256("\n".join([*map(str, belongs_to), text]).encode()).hexdigest()[:16]


def _value(text: object, what: str, kind: type[Any]) -> Any:
    content = _text(text, what)
    try:
        value = strict_json.loads(content)
    except ValueError as error:
        raise DamageError(f"its {what} is no JSON: {error}") from error
    if not isinstance(value, kind):
        raise DamageError(f"its {what} is no JSON {'object' if kind is dict else 'list'}")
    return value


def _finite(value: object, what: str) -> float:
    """Return a finite int or float unchanged."""
    try:
        if type(value) in (int, float) and math.isfinite(cast(float, value)):
            return cast(float, value)
    except OverflowError:  # an integer beyond all floats
        pass
    raise DamageError(f"{what} is no finite number: {reprlib.repr(value)}")


def _integer(value: object, what: str) -> int:
    if type(value) is not int:
        raise DamageError(f"its {what} is no integer: {reprlib.repr(value)}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise DamageError(f"its {what} is no text: {reprlib.repr(value)}")
    return value
