"""What evaluating an architecture gives: values shared by strategies, stores and reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, cast

from pynas.architecture import Architecture

FIDELITY = "fidelity"
"""The metric that says which share of a full evaluation was spent, where it was less than all of it."""


class Status(StrEnum):
    """How an evaluation ended."""

    OK = "ok"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of evaluating one architecture.

    Attributes:
        status: ``OK`` only when every objective has a finite score.
        scores: What the search maximises, by proxy name.
        metrics: What is known beside it (params, flops, tabular accuracy); no strategy's goal. In a trial
            NaN where a number is not finite, which is what a store keeps.
        message: Why it failed, for people.
        seconds: Wall-clock seconds spent.
        traceback: Where an exception of the evaluator's came from, as Python prints it; empty without one.
    """

    status: Status
    scores: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record. Non-finite numbers become None: JSON has no name for them."""
        return {
            "status": self.status.value,
            "scores": {k: v if math.isfinite(v) else None for k, v in self.scores.items()},
            "metrics": {k: v if math.isfinite(v) else None for k, v in self.metrics.items()},
            "message": self.message,
            "seconds": self.seconds,
            **({"traceback": self.traceback} if self.traceback else {}),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evaluation:
        """Inverse of :meth:`to_dict`; None becomes NaN."""

        def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
            return {k: math.nan if v is None else float(v) for k, v in values.items()}

        return cls(
            status=Status(record["status"]),
            scores=numbers(record["scores"]),
            metrics=numbers(record["metrics"]),
            message=str(record["message"]),
            seconds=float(record["seconds"]),
            traceback=str(record.get("traceback", "")),
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One architecture that a search asked for, and what came of it."""

    number: int
    architecture: Architecture
    evaluation: Evaluation


class Proposal(NamedTuple):
    """What a strategy asks for: an architecture, and the share of a full evaluation that it is worth."""

    architecture: Architecture
    fidelity: float


class Evaluator(Protocol):
    """Turns an architecture into an :class:`Evaluation`.

    What has one meaning is read as it: numbers of NumPy and tensors of one element, a mapping of numbers as
    the scores, and a number as the score where a search has one objective that is no cost. Whatever else is
    returned, and whatever is raised but KeyboardInterrupt, makes a failed trial with the reason.

    An evaluator may have any of the members of :class:`Members` beside it; a plain function has none.
    """

    def __call__(self, architecture: Architecture) -> Evaluation:
        """Evaluate; failures are a status, not an exception."""
        ...


@dataclass(frozen=True)
class Members:
    """What an evaluator may have beside its call, and what holds where it does not.

    Attributes:
        config: Identifies it in a store: a mapping of JSON values. Without it its code and what it holds do;
            see :func:`pynas.search`.
        num_classes: Outputs of the networks, on which their costs depend; by default 10.
        inputs: A batch, [B, C, H, W] or with fewer dimensions, from whose shape costs take channels and
            height; by default 3 and 32.
        at_fidelity: ``at_fidelity(share: float) -> Evaluator``, one that is cheaper and less exact (fewer
            images, fewer epochs), with a share of the full effort in (0, 1). Searches that want that call
            it, and keep the share as the metric ``fidelity``; without it all evaluations are full ones.
    """

    config: object = None
    num_classes: Any = None
    inputs: Any = None
    at_fidelity: Callable[[float], object] | None = None


def members_of(evaluator: Evaluator) -> Members:
    """The optional members of an evaluator."""
    found = {each.name: getattr(evaluator, each.name, each.default) for each in fields(Members)}
    return Members(**cast(dict[str, Any], found))
