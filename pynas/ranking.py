"""How well scores rank architectures: rank correlation with known accuracies.

Kendall's tau-b (M. Kendall, Biometrika 1945) over all pairs and over those of the most accurate
architectures, and Spearman's rho (C. Spearman, 1904), each with a bootstrap percentile interval (B. Efron,
1979).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pynas._errors import UserError
from pynas.trial import Trial

BASELINES = ("params", "flops")

_Array = NDArray[np.float64]

_LARGEST_PAIR_MATRIX = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A correlation and its confidence interval; all three NaN where it is not defined (a constant score)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    """

    kendall: Estimate
    spearman: Estimate
    kendall_top: Estimate | None
    count: int
    count_top: int
    excluded: int


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
            }

        record = {
            "correlations": {name: correlation(value) for name, value in self.correlations.items()},
            "architectures": len(self.accuracy),
            "accuracy": self.accuracy_label,
            "top": self.top,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "seed": self.seed,
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

    Raises:
        UserError: fewer than three architectures, or three finite values of a score, or lengths that differ.
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
    threshold = np.sort(known)[::-1][math.ceil(top * len(known)) - 1]
    correlations = {}
    for name, values in scores.items():
        score = np.asarray(values, dtype=np.float64)
        if score.shape != known.shape:
            raise UserError(
                f"scores[{name!r}]: expected {len(known)} values, one for each accuracy, got {len(score)}"
            )
        finite = np.isfinite(score)
        if finite.sum() < 3:
            raise UserError(
                f"score {name!r}: only {finite.sum()} of {len(known)} values are finite, needs at least 3"
            )
        best = finite & (known >= threshold)
        interval = _Bootstrap(resamples, confidence, seed)
        correlations[name] = Correlation(
            kendall=interval(_kendall, score[finite], known[finite]),
            spearman=interval(_spearman, score[finite], known[finite]),
            kendall_top=interval(_kendall, score[best], known[best]) if best.sum() >= 3 else None,
            count=int(finite.sum()),
            count_top=int(best.sum()),
            excluded=int((~finite).sum()),
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
    )


def rank_trials(
    trials: Sequence[Trial],
    proxies: Sequence[str],
    *,
    format: Callable[[Any], str] | None = None,
    **settings: Any,
) -> Ranking:
    """Correlate scores of trials whose metrics hold an ``accuracy``, beside params and FLOPs as baselines.

    A trial that failed as a whole still counts for those of its scores that are finite.

    Args:
        trials: Trials of a search with a table.
        proxies: Names of the scores.
        format: Names an architecture for reports; by default its decisions.
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
    for name in BASELINES:
        values = [trial.evaluation.metrics.get(name, math.nan) for trial in known]
        if name not in scores and any(map(math.isfinite, values)):
            scores[name] = values
    label = format or (lambda architecture: str(architecture.decisions))
    return rank_scores(
        scores,
        [trial.evaluation.metrics["accuracy"] for trial in known],
        labels=[label(trial.architecture) for trial in known],
        **settings,
    )


class _Bootstrap:
    """Percentile intervals of weighted statistics: a resample is how often each item was drawn."""

    def __init__(self, resamples: int, confidence: float, seed: int) -> None:
        self._resamples = resamples
        self._tails = (50 * (1 - confidence), 50 * (1 + confidence))
        self._seed = seed

    def __call__(
        self, statistic: Callable[[_Array, _Array, _Array], _Array], x: _Array, y: _Array
    ) -> Estimate:
        rng = np.random.default_rng(self._seed)
        value = float(statistic(x, y, np.ones((1, len(x))))[0])
        if math.isnan(value):
            return Estimate(math.nan, math.nan, math.nan)
        draws = []
        rows = max(1, 8_000_000 // len(x))  # bounds the memory of a chunk of resamples
        for start in range(0, self._resamples, rows):
            count = min(rows, self._resamples - start)
            weights = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=count).astype(np.float64)
            draws.append(statistic(x, y, weights))
        low, high = np.nanpercentile(np.concatenate(draws), self._tails)
        return Estimate(value, float(low), float(high))


def _kendall(x: _Array, y: _Array, weights: _Array) -> _Array:
    """Tau-b of weighted items, tau = sum_ij w_i w_j s^x_ij s^y_ij / sqrt(D_x D_y), s_ij = sign(v_i - v_j).

    D_v = sum_ij w_i w_j [v_i != v_j]. Copies of one item tie in both, as they do in a resample.

    Args:
        x: ``[N]``.
        y: ``[N]``.
        weights: ``[R, N]`` counts of each item in each resample.

    Returns:
        ``[R]``, NaN where all of x or all of y tie.
    """
    if len(x) > _LARGEST_PAIR_MATRIX:  # N log N for each resample beats N^2 for all of them
        copies = weights.astype(np.int64)
        taus = [stats.kendalltau(np.repeat(x, row), np.repeat(y, row)).statistic for row in copies]
        return np.array(taus, dtype=np.float64)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    # Small integers are exact in float32, and their products run at twice the speed.
    concordant = weights.astype(np.float32) @ signs.astype(np.float32)
    concordance = np.einsum("rn,rn->r", weights, concordant)
    return _divide(concordance, np.sqrt(_untied_pairs(x, weights) * _untied_pairs(y, weights)))


def _spearman(x: _Array, y: _Array, weights: _Array) -> _Array:
    """Rho of weighted items: Pearson's correlation of mid-ranks. Shapes as for :func:`_kendall`."""
    mean = 0.5 * (weights.sum(axis=1, keepdims=True) + 1)
    dx, dy = (_mid_ranks(values, weights) - mean for values in (x, y))
    scale = np.sqrt((weights * dx * dx).sum(axis=1) * (weights * dy * dy).sum(axis=1))
    return _divide((weights * dx * dy).sum(axis=1), scale)


def _group_counts(values: _Array, weights: _Array) -> tuple[_Array, NDArray[np.intp]]:
    """Items in each group of equal values, ``[R, G]``, ascending, and the group of each item, ``[N]``."""
    _, first, group = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    inverse = np.empty_like(group)
    inverse[order] = group
    return np.add.reduceat(weights[:, order], first, axis=1), inverse


def _mid_ranks(values: _Array, weights: _Array) -> _Array:
    """Rank of each item among all copies, from 1; equal values share the mean of their ranks. ``[R, N]``."""
    counts, group = _group_counts(values, weights)
    ranks: _Array = (np.cumsum(counts, axis=1) - 0.5 * (counts - 1))[:, group]
    return ranks


def _untied_pairs(values: _Array, weights: _Array) -> _Array:
    counts, _ = _group_counts(values, weights)
    pairs: _Array = weights.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    return pairs


def _divide(numerator: _Array, denominator: _Array) -> _Array:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
