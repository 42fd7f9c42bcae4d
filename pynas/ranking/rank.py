"""How well scores rank architectures: rank correlation with known accuracies.

Kendall's tau-b (M. Kendall, Biometrika 1945) over all pairs and over those of the most accurate
architectures, and Spearman's rho (C. Spearman, 1904), each with a bootstrap percentile interval (B. Efron,
1979); the same among the architectures that a cost leaves over, and the Pareto fronts that scores choose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._plural import counted
from pynas.ranking.correlation import Bootstrap, Estimate, kendall, spearman
from pynas.ranking.fronts import FrontComparison, compare_fronts
from pynas.trial import Trial

__all__ = ["BASELINES", "Correlation", "Estimate", "Ranking", "rank_scores", "rank_trials"]

BASELINES = ("params", "flops")


@dataclass(frozen=True, slots=True)
class Correlation:
    """How one score ranks.

    Attributes:
        kendall: Tau-b over all pairs.
        spearman: Rho.
        kendall_top: Tau-b within the most accurate architectures; None if fewer than three of them have a
            score.
        count: Architectures with a finite score.
        count_top: Those of them among the most accurate.
        excluded: Architectures without a finite score; they enter nothing else.
        spearman_top: Rho within the most accurate architectures; None as for ``kendall_top``.
        kendall_within: Tau-b among the architectures that meet the constraints; None without constraints, or
            if fewer than three that meet them have a score.
        spearman_within: Rho among them.
        count_within: Architectures with a score that meet the constraints.
    """

    kendall: Estimate
    spearman: Estimate
    kendall_top: Estimate | None
    count: int
    count_top: int
    excluded: int
    spearman_top: Estimate | None = None
    kendall_within: Estimate | None = None
    spearman_within: Estimate | None = None
    count_within: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores of the same architectures against their accuracy.

    Attributes:
        correlations: By name of the score, in the order given.
        scores: ``[N]`` values by name, NaN where there is none.
        accuracy: ``[N]`` known accuracies.
        labels: ``[N]`` names of the architectures, for people; may be empty.
        accuracy_label: What the accuracy is, such as ``CIFAR-10 test accuracy (%)``.
        top: Share of the most accurate architectures that ``kendall_top`` looks at.
        confidence: Coverage of the intervals.
        resamples: Bootstrap resamples behind them.
        seed: Seed of the bootstrap.
        bounds: Constraints: the largest allowed value by name of the cost.
        costs: ``[N]`` values by name of the cost, NaN where not known.
        fronts: For each cost, the Pareto fronts that scores choose against the true one.
        trials: ``[N]`` trials that the scores are from; empty where they are not from trials.
    """

    correlations: Mapping[str, Correlation]
    scores: Mapping[str, tuple[float, ...]]
    accuracy: tuple[float, ...]
    labels: tuple[str, ...]
    accuracy_label: str
    top: float
    confidence: float
    resamples: int
    seed: int
    bounds: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fronts: tuple[FrontComparison, ...] = ()
    trials: tuple[Trial, ...] = ()

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {found.spearman.value:.3f}" for name, found in self.correlations.items())
        return f"Ranking({counted(len(self.accuracy), 'architecture')}; Spearman: {scores})"

    @property
    def constraint(self) -> str:
        """The constraints in words; empty without any."""
        return " and ".join(f"{name} <= {bound:g}" for name, bound in self.bounds.items())

    def to_json(self) -> str:
        """The correlations and how they were computed, as a JSON object; None stands for NaN."""

        def estimate(value: Estimate | None) -> dict[str, float | None] | None:
            if value is None or math.isnan(value.value):
                return None
            return {"value": value.value, "low": value.low, "high": value.high}

        def correlation(value: Correlation) -> dict[str, Any]:
            return {
                "kendall": estimate(value.kendall),
                "spearman": estimate(value.spearman),
                "kendall_top": estimate(value.kendall_top),
                "count": value.count,
                "count_top": value.count_top,
                "excluded": value.excluded,
                "spearman_top": estimate(value.spearman_top),
                "kendall_within": estimate(value.kendall_within),
                "spearman_within": estimate(value.spearman_within),
                "count_within": value.count_within,
            }

        record = {
            "correlations": {name: correlation(value) for name, value in self.correlations.items()},
            "architectures": len(self.accuracy),
            "accuracy": self.accuracy_label,
            "top": self.top,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "seed": self.seed,
            "constraints": dict(self.bounds),
            "fronts": [front.to_dict() for front in self.fronts],
        }
        return json.dumps(record, allow_nan=False)


def rank_scores(
    scores: Mapping[str, Sequence[float]],
    accuracy: Sequence[float],
    *,
    labels: Sequence[str] = (),
    accuracy_label: str = "accuracy",
    top: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    costs: Mapping[str, Sequence[float]] | None = None,
    bounds: Mapping[str, float] | None = None,
) -> Ranking:
    """Correlate each score with accuracy.

    Args:
        scores: ``[N]`` numbers by name, higher is better; NaN and infinities are left out and counted.
        accuracy: ``[N]`` finite numbers of any unit.
        labels: ``[N]`` names of the architectures, kept for reports.
        accuracy_label: What the accuracy is.
        top: The most accurate share of the N architectures, ties with the last one included, for
            ``kendall_top``.
        confidence: Coverage of the bootstrap intervals; those of ``kendall_top`` resample within the top.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap; every score gets the same resamples.
        costs: ``[N]`` numbers by name, lower is better, NaN where not known: each gets a comparison of
            Pareto fronts.
        bounds: Largest allowed value by name of the cost; the architectures that meet all of them get
            correlations of their own. One whose cost is not known does not meet it.

    Raises:
        UserError: fewer than three architectures, or three finite values of a score, or lengths that differ;
            no architecture meets the constraints.
    """
    known = np.asarray(accuracy, dtype=np.float64)
    if not np.isfinite(known).all():
        raise UserError("accuracy: expected finite numbers; leave architectures without one out")
    if not 0 < top <= 1:
        raise UserError(f"top: expected a share in (0, 1], got {top}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence: expected a number in (0, 1), got {confidence}")
    if len(known) < 3:
        raise UserError(
            f"rank correlation needs at least 3 architectures with a known accuracy, got {len(known)}"
        )
    known_costs = {name: np.asarray(values, dtype=np.float64) for name, values in (costs or {}).items()}
    within = _within(known_costs, bounds or {}, len(known))
    threshold = np.sort(known)[::-1][math.ceil(top * len(known)) - 1]
    correlations = {}
    for name, values in scores.items():
        score = np.asarray(values, dtype=np.float64)
        if score.shape != known.shape:
            raise UserError(
                f"scores[{name!r}]: expected {counted(len(known), 'value')}, one for each accuracy, "
                f"got {len(score)}"
            )
        finite = np.isfinite(score)
        if finite.sum() < 3:
            raise UserError(
                f"score {name!r}: only {finite.sum()} of {counted(len(known), 'value')} are finite, "
                "needs at least 3"
            )
        best = finite & (known >= threshold)
        left = finite & within
        interval = Bootstrap(resamples, confidence, seed)
        enough_top, enough_left = best.sum() >= 3, bool(bounds) and left.sum() >= 3
        correlations[name] = Correlation(
            kendall=interval(kendall, score[finite], known[finite]),
            spearman=interval(spearman, score[finite], known[finite]),
            kendall_top=interval(kendall, score[best], known[best]) if enough_top else None,
            count=int(finite.sum()),
            count_top=int(best.sum()),
            excluded=int((~finite).sum()),
            spearman_top=interval(spearman, score[best], known[best]) if enough_top else None,
            kendall_within=interval(kendall, score[left], known[left]) if enough_left else None,
            spearman_within=interval(spearman, score[left], known[left]) if enough_left else None,
            count_within=int(left.sum()) if bounds else 0,
        )
    return Ranking(
        correlations=correlations,
        scores={name: tuple(map(float, values)) for name, values in scores.items()},
        accuracy=tuple(known.tolist()),
        labels=tuple(labels),
        accuracy_label=accuracy_label,
        top=top,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        bounds=dict(bounds or {}),
        costs={name: tuple(map(float, values)) for name, values in known_costs.items()},
        fronts=tuple(
            compare_fronts(scores, accuracy, name, values.tolist()) for name, values in known_costs.items()
        ),
    )


def _within(
    costs: Mapping[str, NDArray[np.float64]], bounds: Mapping[str, float], count: int
) -> NDArray[np.bool_]:
    """``[N]`` whether each architecture meets all bounds."""
    met = np.ones(count, dtype=bool)
    for name, bound in bounds.items():
        if name not in costs or costs[name].shape != (count,):
            raise UserError(
                f"constraint {name!r}: expected its cost for each of {counted(count, 'architecture')}"
            )
        met &= costs[name] <= bound  # False for NaN
        if not met.any():
            known = costs[name][np.isfinite(costs[name])]
            least = f"the smallest is {known.min():g}" if len(known) else "it is not known for any"
            raise UserError(
                f"constraint {name} <= {bound:g}: none of {counted(count, 'architecture')} meets it; {least}"
            )
    return met


def _check_some(scores: Mapping[str, Sequence[float]], trials: Sequence[Trial]) -> None:
    """Raise UserError, with the reason of the first, where a score failed for nearly all trials."""
    for name, values in scores.items():
        failed = [not math.isfinite(value) for value in values]
        if sum(failed) > max(0, len(values) - 3) and any(failed):
            reasons = (t.evaluation.message for t, bad in zip(trials, failed, strict=True) if bad)
            first = next(filter(None, reasons), "it is not among the scores of these trials")
            raise UserError(
                f"score {name!r}: failed for {sum(failed):,} of {counted(len(values), 'architecture')}, and "
                f"a rank correlation needs 3; the first: {first}"
            )


def rank_trials(
    trials: Sequence[Trial],
    proxies: Sequence[str],
    *,
    format: Callable[[Any], str] | None = None,
    costs: Sequence[str] = (),
    **settings: Any,
) -> Ranking:
    """Correlate scores of trials whose metrics hold an ``accuracy``, beside params and FLOPs as baselines.

    A trial that failed as a whole still counts for those of its scores that are finite.

    Args:
        trials: Trials of a search with a table.
        proxies: Names of the scores.
        format: Names an architecture for reports; by default its decisions.
        costs: Names of metrics that are costs; those of ``bounds`` are among them.
        **settings: As for :func:`rank_scores`.
    """
    known = [trial for trial in trials if math.isfinite(trial.evaluation.metrics.get("accuracy", math.nan))]
    if trials and not known:
        raise UserError(
            "none of these trials has a known accuracy: search with a table, such as --table analog"
        )
    scores: dict[str, list[float]] = {
        name: [trial.evaluation.scores.get(name, math.nan) for trial in known] for name in proxies
    }
    _check_some(scores, known)
    for name in BASELINES:
        values = [trial.evaluation.metrics.get(name, math.nan) for trial in known]
        if name not in scores and any(map(math.isfinite, values)):
            scores[name] = values
    label = format or (lambda architecture: str(architecture.decisions))
    ranking = rank_scores(
        scores,
        [trial.evaluation.metrics["accuracy"] for trial in known],
        labels=[label(trial.architecture) for trial in known],
        costs={
            name: [trial.evaluation.metrics.get(name, math.nan) for trial in known]
            for name in dict.fromkeys((*costs, *(settings.get("bounds") or {})))
        },
        **settings,
    )
    return replace(ranking, trials=tuple(known))
