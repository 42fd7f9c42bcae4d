"""The correction of summed latencies, and the error of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pynas._plural import counted

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correction:
    """``t = slope * sum + per_operator * count + constant`` in milliseconds; all coefficients at least 0.

    ``sum`` adds the latencies of single operators, ``count`` is their number. An operator timed by itself
    finds its data in the cache and has less interpreter overhead than inside a network; the first two terms
    correct these errors.
    """

    slope: float = 1.0
    per_operator: float = 0.0
    constant: float = 0.0

    def __call__(self, total: float, count: int) -> float:
        return self.slope * total + self.per_operator * count + self.constant

    @classmethod
    def fit(cls, totals: Sequence[float], counts: Sequence[int], measured: Sequence[float]) -> Correction:
        """Least squares of relative errors over measured networks; with fewer than four, only the slope."""
        from scipy import optimize  # imported here: commands that fit nothing should not wait for it

        t = np.asarray(measured, dtype=np.float64)
        columns = [np.asarray(totals, dtype=np.float64)]
        if len(t) >= 4:
            columns += [np.asarray(counts, dtype=np.float64), np.ones_like(t)]
        if len(t) == 0:
            return cls()
        weights, _ = optimize.nnls(np.stack(columns, axis=1) / t[:, None], np.ones_like(t))
        return cls(*map(float, weights))


@dataclass(frozen=True, slots=True)
class PredictionError:
    """The error of predictions on held-out networks.

    Attributes:
        mape: Mean of ``|predicted - measured| / measured``, in percent.
        mape_of_sums: The same without the correction.
        spearman: Rank correlation; NaN with fewer than three networks.
        kendall: Tau-b; NaN with fewer than three networks.
        repeatability: Mean over networks of the standard deviation between rounds over the mean, in percent;
            no predictor can be much better. NaN with a single round.
        count: Number of networks compared.
        missing: Number of networks that could not be predicted because an operator was never timed.
    """

    mape: float
    mape_of_sums: float
    spearman: float
    kendall: float
    repeatability: float
    count: int
    missing: int

    def to_dict(self) -> dict[str, float]:
        """A JSON-ready record, which may contain NaN."""
        return asdict(self)


LARGEST_ERROR, LARGEST_SPREAD = 20.0, 15.0  # percent


def doubts_of(error: PredictionError) -> tuple[str, ...]:
    """What speaks against a table's predictions, in sentences: nothing, where they are sound."""
    found = []
    if not error.count:
        found.append("its error is not known, since no network was held out that it can predict")
    if error.mape > LARGEST_ERROR:
        found.append(
            f"its error on {counted(error.count, 'held-out network')} is {error.mape:.0f} %, more than "
            f"{LARGEST_ERROR:.0f} %; their order has a Kendall of {error.kendall:.2f}"
        )
    if error.repeatability > LARGEST_SPREAD:
        found.append(
            f"times of the same network differ by {error.repeatability:.0f} % between rounds, more than "
            f"{LARGEST_SPREAD:.0f} %: the machine was busy; build it on a quiet one, or with more rounds"
        )
    return tuple(found)


def prediction_error(
    predicted: Sequence[float], sums: Sequence[float], rounds: Sequence[Sequence[float]]
) -> PredictionError:
    """Compare predictions (NaN for none) with measurements, one sequence of rounds per network."""
    from scipy import stats

    measured = np.array([np.median(times) for times in rounds], dtype=np.float64)
    p, s = np.asarray(predicted, dtype=np.float64), np.asarray(sums, dtype=np.float64)
    known = np.isfinite(p)
    spreads = [np.std(times, ddof=1) / np.mean(times) for times in rounds if len(times) > 1]
    enough = known.sum() >= 3
    return PredictionError(
        mape=_mape(p[known], measured[known]),
        mape_of_sums=_mape(s[known], measured[known]),
        spearman=float(stats.spearmanr(p[known], measured[known]).statistic) if enough else float("nan"),
        kendall=float(stats.kendalltau(p[known], measured[known]).statistic) if enough else float("nan"),
        repeatability=100 * float(np.mean(spreads)) if spreads else float("nan"),
        count=int(known.sum()),
        missing=int((~known).sum()),
    )


def _mape(predicted: _Array, measured: _Array) -> float:
    return 100 * float(np.mean(np.abs(predicted - measured) / measured)) if len(measured) else float("nan")
