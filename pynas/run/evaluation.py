"""What an evaluator gives, as an evaluation: one reading of it for this process and for workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pynas._errors import UserError
from pynas._user_values import Unusable, cleaned, explained, number, shown, traced
from pynas.architecture import Architecture
from pynas.spaces import InvalidArchitecture
from pynas.trial import FIDELITY, Evaluation, Evaluator, Proposal, Status, members_of

if TYPE_CHECKING:
    from pynas.tables import Table


def evaluated(
    evaluator: Evaluator, proposal: Proposal, is_first: bool, scored: Sequence[str] = ()
) -> Evaluation:
    """Evaluate; whatever the evaluator raises or returns is an evaluation, a failed one if need be.

    A fidelity below 1 is for an evaluator with a method ``at_fidelity``, and becomes a metric.

    Args:
        evaluator: Called with the architecture.
        proposal: What to evaluate, and with which share of a full evaluation.
        is_first: Whether a UserError is raised instead: a person can act on it before anything is lost.
        scored: Names of the objectives that nobody but the evaluator gives; what :func:`read` needs.

    Raises:
        KeyboardInterrupt: Somebody wants the search to end.
    """
    start = time.perf_counter()
    architecture, fidelity = proposal
    reduced: dict[str, float] = {}
    try:
        judge: Callable[[Architecture], object] = evaluator
        at_fidelity = None if fidelity == 1 else members_of(evaluator).at_fidelity
        if at_fidelity is not None:
            reduced = {FIDELITY: fidelity}
            cheaper = at_fidelity(fidelity)
            if not callable(cheaper):
                raise Unusable(f"at_fidelity({fidelity:.3g}): expected an evaluator, got {shown(cheaper)}")
            judge = cheaper
        evaluation = read(judge(architecture), scored, start)
        return replace(evaluation, metrics={**evaluation.metrics, **reduced}) if reduced else evaluation
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what extension modules derive from BaseException
        if is_first and isinstance(error, UserError) and not isinstance(error, InvalidArchitecture):
            raise
        seconds = time.perf_counter() - start
        where = traced(error, __file__)
        return Evaluation(Status.FAILED, {}, reduced, explained(error), seconds, where)


def read(returned: object, scored: Sequence[str], start: float) -> Evaluation:
    """What an evaluator returned, in plain Python values.

    What has one meaning is converted: numbers of NumPy and of one-element tensors, the text of a status, a
    mapping of numbers (the scores), and a single number where ``scored`` has one name. Anything else makes a
    failed evaluation that names the key, what was expected and what came, and keeps what could be read.
    """
    if not isinstance(returned, Evaluation):
        scores = _scores(returned, scored)
        returned = Evaluation(Status.OK, scores, seconds=time.perf_counter() - start)
    problems: list[str] = []
    evaluation = Evaluation(
        status=_status(returned.status, problems),
        scores=_numbers(returned.scores, "scores", problems),
        metrics=_numbers(returned.metrics, "metrics", problems),
        message=_message(returned.message, problems),
        seconds=_seconds(returned.seconds, time.perf_counter() - start, problems),
        traceback=cleaned(returned.traceback) if isinstance(returned.traceback, str) else "",
    )
    if not problems:
        return evaluation
    told = [evaluation.message] if evaluation.message else []
    return replace(evaluation, status=Status.FAILED, message="; ".join(problems + told))


def _scores(returned: object, scored: Sequence[str]) -> Mapping[str, float]:
    if isinstance(returned, Mapping):
        return returned
    what = "the evaluator: expected an Evaluation, a number or numbers by name"
    if isinstance(returned, (bool, str, bytes)) or returned is None:
        raise Unusable(f"{what}, got {shown(returned)}")
    try:
        value = number(returned)
    except Unusable as error:
        raise Unusable(f"{what}, got {shown(returned)}") from error
    if len(scored) != 1:
        names = ", ".join(scored) or "none of the objectives"
        raise Unusable(f"the evaluator: a single number does not say which score it is of {names}")
    return {scored[0]: value}


def _status(status: object, problems: list[str]) -> Status:
    if isinstance(status, str):
        try:
            return Status(status)
        except ValueError:
            pass
    problems.append(f"status: expected {', '.join(Status)}, got {shown(status)}")
    return Status.FAILED


def _numbers(values: object, what: str, problems: list[str]) -> dict[str, float]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        problems.append(f"{what}: expected numbers by name, got {shown(values)}")
        return {}
    numbers: dict[str, float] = {}
    try:
        for name, value in values.items():
            if not isinstance(name, str) or not name:
                problems.append(f"{what}: expected names that are text, got {shown(name)}")
                continue
            name = str.__str__(name)  # of a kind of its own, such as NumPy's
            if cleaned(name) != name:
                problems.append(f"{what}: the name {name!r} cannot be shown; expected printable text")
                continue
            try:
                numbers[name] = number(value)
            except Unusable as error:
                problems.append(f"{what}[{name!r}]: {error}")
    except Exception as error:  # whatever a mapping of its own raises
        problems.append(f"{what}: cannot be read: {explained(error)}")
    return numbers


def _message(message: object, problems: list[str]) -> str:
    if message is None:
        return ""
    if isinstance(message, str):
        return cleaned(message)
    if isinstance(message, BaseException):
        return explained(message)
    problems.append(f"message: expected text, got {shown(message)}")
    return ""


def _seconds(seconds: object, elapsed: float, problems: list[str]) -> float:
    try:
        value = number(seconds)
        if math.isfinite(value):
            return value
        problems.append(f"seconds: expected a finite number, got {value}")
    except Unusable as error:
        problems.append(f"seconds: {error}")
    return elapsed


def with_accuracy(
    evaluation: Evaluation, table: Table, architecture: Architecture, is_first: bool
) -> Evaluation:
    """The evaluation with what the table knows of the architecture as the metric ``accuracy``.

    What goes wrong in a table costs no trial: the message says it, and there is no such metric.
    """
    try:
        found = table.accuracy(architecture)
        value = math.nan if found is None else number(found)
        if math.isinf(value):
            raise Unusable(f"expected a finite number, got {value}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if is_first and isinstance(error, UserError):
            raise
        told = f"the accuracy of the table is not known: {explained(error)}"
        return replace(evaluation, message="; ".join(filter(None, (evaluation.message, told))))
    if math.isnan(value):
        return evaluation
    return replace(evaluation, metrics={**evaluation.metrics, "accuracy": value})
