"""What a search is after: scores to maximise, and costs to minimise."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pynas._costs import Costs
from pynas._errors import UserError
from pynas._multiobjective import hypervolume, mean_ranks, pareto_front
from pynas.architecture import Architecture
from pynas.trial import FIDELITY, Evaluation, Evaluator, Status, Trial


def split(objective: str) -> tuple[int, str]:
    """Sign and name: ``zico`` is ``(1, "zico")``, ``-latency`` is ``(-1, "latency")``."""
    return (-1, objective[1:]) if objective.startswith("-") else (1, objective)


def checked(objectives: str | Sequence[str]) -> tuple[str, ...]:
    """The objectives as a tuple; UserError if there are none, or one twice."""
    texts = (objectives,) if isinstance(objectives, str) else tuple(objectives)
    names = [split(text)[1] for text in texts]
    if not texts or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"objectives: expected at least one name and none twice, got {', '.join(texts) or 'none'}"
        )
    return texts


def evaluated(
    evaluator: Evaluator, architecture: Architecture, is_first: bool, fidelity: float = 1.0
) -> Evaluation:
    """Evaluate; an exception makes a failed evaluation, or the first time an error if a person can act.

    A fidelity below 1 is for an evaluator with a method ``at_fidelity``, and becomes a metric.
    """
    start = time.perf_counter()
    try:
        at_fidelity = getattr(evaluator, "at_fidelity", None)
        if fidelity == 1 or at_fidelity is None:
            return evaluator(architecture)
        cheaper: Evaluation = at_fidelity(fidelity)(architecture)
        return replace(cheaper, metrics={**cheaper.metrics, FIDELITY: fidelity})
    except Exception as error:
        if is_first and isinstance(error, UserError):
            raise
        message = f"{type(error).__name__}: {error}"
        return Evaluation(Status.FAILED, message=message, seconds=time.perf_counter() - start)


def completed(
    evaluation: Evaluation,
    objectives: Sequence[str],
    costs: Costs,
    measured: Mapping[str, float],
    architecture: Architecture,
    is_first: bool,
) -> Evaluation:
    """The evaluation with a score for every objective, higher is better, and the costs as metrics.

    An objective that is not finite makes it a failed one. One that neither the evaluator nor the costs give
    is an error the first time, and a failed evaluation after it.
    """
    scores = {name: float(value) for name, value in evaluation.scores.items()}
    result = replace(evaluation, scores=scores, metrics={**evaluation.metrics, **measured})
    for text in objectives:
        sign, name = split(text)
        if text not in scores and name in (given := scores if name in scores else measured):
            scores[text] = sign * given[name]
    if evaluation.status is not Status.OK:
        return result
    for text in objectives:
        name = split(text)[1]
        if text not in scores:
            given_names = ", ".join(evaluation.scores) or "none"
            message = f"objective {text!r}: the evaluator does not give it; it gives: {given_names}"
            if is_first:
                raise UserError(message)
            return replace(result, status=Status.FAILED, message=f"UserError: {message}")
        if not math.isfinite(scores[text]):
            message = f"{text} is not finite: {scores[text]}"
            if name in measured and name not in evaluation.scores:
                message = f"{name} is not known: {costs.why(name, architecture)}"
            return replace(result, status=Status.FAILED, message=message)
    return result


# The time of a hypervolume grows with the front's size to the power of its axes: seconds on four of them.
HYPERVOLUME_AXES = 4


def summary(
    trials: Sequence[Trial], objectives: Sequence[str], costs: Sequence[str]
) -> tuple[Trial | None, tuple[Trial, ...], float]:
    """The best trial by mean rank, the Pareto front, and its hypervolume.

    Args:
        trials: All trials; only those that are OK count, and of them those of the highest fidelity.
        objectives: What was searched for.
        costs: Names of the costs; if no objective is one of them, the front has FLOPs as another axis.

    Returns:
        (best, front, hypervolume): the share of the box between the worst and the best value of each axis
        among the trials that the front dominates; NaN without trials, and on more than
        ``HYPERVOLUME_AXES`` axes.
    """
    valid = [trial for trial in trials if trial.evaluation.status is Status.OK]
    if not valid:
        return None, (), math.nan
    fidelities = [trial.evaluation.metrics.get(FIDELITY, 1.0) for trial in valid]
    valid = [trial for trial, share in zip(valid, fidelities, strict=True) if share == max(fidelities)]
    scores = [[trial.evaluation.scores[name] for name in objectives] for trial in valid]
    ranks = mean_ranks(scores)
    points = axes(valid, objectives, costs)
    front = pareto_front(points)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = np.where(high > low, (points - low) / np.where(high > low, high - low, 1.0), 1.0)
    few = points.shape[1] <= HYPERVOLUME_AXES
    volume = hypervolume(scaled[front], np.zeros(points.shape[1])) if few else math.nan
    return valid[ranks.index(max(ranks))], tuple(valid[i] for i in front), volume


def axes(trials: Sequence[Trial], objectives: Sequence[str], costs: Sequence[str]) -> np.ndarray:
    """``[N, K]`` higher is better: the objectives, and minus FLOPs if none of them is a cost."""
    columns = [[trial.evaluation.scores[name] for trial in trials] for name in objectives]
    if not any(split(text)[1] in costs for text in objectives):
        columns.append([-trial.evaluation.metrics["flops"] for trial in trials])
    return np.array(columns, dtype=np.float64).T
