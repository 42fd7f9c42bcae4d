"""What an evaluator gives, as an evaluation: one reading of it for this process and for workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from pynas._errors import UserError, printable
from pynas.architecture import Architecture
from pynas.trial import FIDELITY, Evaluation, Evaluator, Status

if TYPE_CHECKING:
    from pynas.benchmarks import Table


class Unusable(Exception):  # noqa: N818  (what came, not what went wrong here)
    """A value that cannot be read as what it should be; the text says what was expected and what came."""

    def __str__(self) -> str:
        return str(self.args[0])


def explained(error: BaseException) -> str:
    """Type and text of an exception, whatever its own text does."""
    if isinstance(error, Unusable):
        return cleaned(str(error))
    name = type(error).__name__
    try:
        return cleaned(f"{name}: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException as second:
        return f"{name}, whose text cannot be had ({type(second).__name__})"


def cleaned(text: str) -> str:
    """Text that every store, page and terminal takes, the same after it was stored as before."""
    return printable(str.__str__(text).expandtabs(4), lines=True)


def number(value: object) -> float:
    """The one number that ``value`` is: Python's and NumPy's kinds, and arrays and tensors of one element.

    Raises:
        Unusable: It is none, or too large for a float.
    """
    if type(value) is float:
        return value
    if isinstance(value, (np.datetime64, np.timedelta64)):
        raise Unusable(f"expected a number, got {shown(value)}")
    item: object = value
    try:
        if not isinstance(value, (bool, int, float)) and callable(take := getattr(value, "item", None)):
            item = take()
        if isinstance(item, (str, bytes, complex)) or not (
            hasattr(type(item), "__float__") or hasattr(type(item), "__index__")
        ):
            raise Unusable(f"expected a number, got {shown(value)}")
        return float(cast(float, item))
    except Unusable:
        raise
    except OverflowError:
        raise Unusable(f"expected a number, got {shown(value)}, too large for a float") from None
    except Exception as error:  # whatever an object's own conversion raises
        raise Unusable(f"expected a number, got {shown(value)} ({explained(error)})") from error


def shown(value: object) -> str:
    """A few words about a value of any kind, without its own ``repr``, which may be long or raise."""
    kind = type(value).__name__
    if isinstance(value, str):
        return f"the text {str.__str__(value)[:60]!r}"
    if value is None or isinstance(value, bool):
        return str(value)
    if type(value) is int:
        return str(value) if value.bit_length() < 64 else f"an integer of {value.bit_length()} bits"
    if type(value) is float:
        return str(value)
    shape = getattr(value, "shape", None)
    return f"{kind} of shape {list(shape)}" if isinstance(shape, tuple) else kind


def evaluated(
    evaluator: Evaluator,
    architecture: Architecture,
    is_first: bool,
    fidelity: float = 1.0,
    scored: Sequence[str] = (),
) -> Evaluation:
    """Evaluate; whatever the evaluator raises or returns is an evaluation, a failed one if need be.

    A fidelity below 1 is for an evaluator with a method ``at_fidelity``, and becomes a metric.

    Args:
        evaluator: Called with the architecture.
        architecture: What to evaluate.
        is_first: Whether a UserError is raised instead: a person can act on it before anything is lost.
        fidelity: Share of a full evaluation.
        scored: Names of the objectives that nobody but the evaluator gives; what :func:`read` needs.

    Raises:
        KeyboardInterrupt: Somebody wants the search to end.
    """
    start = time.perf_counter()
    reduced: dict[str, float] = {}
    try:
        judge: Callable[[Architecture], object] = evaluator
        at_fidelity = None if fidelity == 1 else getattr(evaluator, "at_fidelity", None)
        if at_fidelity is not None:
            reduced = {FIDELITY: fidelity}
            judge = at_fidelity(fidelity)
            if not callable(judge):
                raise Unusable(f"at_fidelity({fidelity:.3g}): expected an evaluator, got {shown(judge)}")
        evaluation = read(judge(architecture), scored, start)
        return replace(evaluation, metrics={**evaluation.metrics, **reduced}) if reduced else evaluation
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what extension modules derive from BaseException
        if is_first and isinstance(error, UserError):
            raise
        seconds = time.perf_counter() - start
        return Evaluation(Status.FAILED, metrics=reduced, message=explained(error), seconds=seconds)


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
