"""What a search is after: scores to maximise, and costs to minimise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware.costs import Costs
from pynas.ranking.pareto import hypervolume, mean_ranks, pareto_front
from pynas.trial import FIDELITY, Evaluation, Status, Trial


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
    is an error the first time, and a failed evaluation after it. Numbers that are not finite are NaN, which
    is what a store gives back for them.
    """
    scores = dict(evaluation.scores)
    for text in objectives:
        sign, name = split(text)
        if text not in scores and name in (given := scores if name in scores else measured):
            scores[text] = sign * given[name]
    metrics = _finite_or_nan({**evaluation.metrics, **measured})
    result = replace(evaluation, scores=_finite_or_nan(scores), metrics=metrics)
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


def _finite_or_nan(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value if math.isfinite(value) else math.nan for name, value in values.items()}


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
        ``HYPERVOLUME_AXES`` axes. A trial whose FLOPs are not known is on no front that has them as an axis.
    """
    valid = [trial for trial in trials if trial.evaluation.status is Status.OK]
    if not valid:
        return None, (), math.nan
    fidelities = [_fidelity(trial) for trial in valid]
    valid = [trial for trial, share in zip(valid, fidelities, strict=True) if share == max(fidelities)]
    scores = [[trial.evaluation.scores[name] for name in objectives] for trial in valid]
    ranks = mean_ranks(scores)
    best = valid[ranks.index(max(ranks))]
    points = axes(valid, objectives, costs)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not len(known):
        return best, (), math.nan
    points = points[known]
    front = pareto_front(points)
    points = points / 2  # values may lie further apart than a float reaches
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = np.where(high > low, (points - low) / np.where(high > low, high - low, 1.0), 1.0)
    few = points.shape[1] <= HYPERVOLUME_AXES
    volume = hypervolume(scaled[front], np.zeros(points.shape[1])) if few else math.nan
    return best, tuple(valid[known[i]] for i in front), volume


def _fidelity(trial: Trial) -> float:
    share = trial.evaluation.metrics.get(FIDELITY, 1.0)
    return 0.0 if math.isnan(share) else share  # an evaluator may have a metric of this name


def axes(trials: Sequence[Trial], objectives: Sequence[str], costs: Sequence[str]) -> np.ndarray:
    """``[N, K]`` higher is better: the objectives, and minus FLOPs if none of them is a cost."""
    columns = [[trial.evaluation.scores[name] for trial in trials] for name in objectives]
    if not any(split(text)[1] in costs for text in objectives):
        columns.append([-trial.evaluation.metrics.get("flops", math.nan) for trial in trials])
    return np.array(columns, dtype=np.float64).T
