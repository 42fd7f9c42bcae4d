"""Rank correlations of weighted items, and their bootstrap intervals.

Kendall's tau-b (M. Kendall, Biometrika 1945), Spearman's rho (C. Spearman, 1904), percentile intervals
(B. Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


class Bootstrap:
    """Percentile intervals of weighted statistics: a resample is how often each item was drawn."""

    def __init__(self, resamples: int, confidence: float, seed: int) -> None:
        self._resamples = resamples
        self._tails = (50 * (1 - confidence), 50 * (1 + confidence))
        self._seed = seed

    def __call__(
        self, statistic: Callable[[_Array, _Array, _Array], _Array], x: _Array, y: _Array
    ) -> Estimate:
        """The statistic of all items, and the interval of what resamples give."""
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


def kendall(x: _Array, y: _Array, weights: _Array) -> _Array:
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
        from scipy import stats  # which takes a second to import

        taus = [stats.kendalltau(np.repeat(x, row), np.repeat(y, row)).statistic for row in copies]
        return np.array(taus, dtype=np.float64)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    # Small integers are exact in float32, and their products run at twice the speed.
    concordant = weights.astype(np.float32) @ signs.astype(np.float32)
    concordance = np.einsum("rn,rn->r", weights, concordant)
    return _divide(concordance, np.sqrt(_untied_pairs(x, weights) * _untied_pairs(y, weights)))


def spearman(x: _Array, y: _Array, weights: _Array) -> _Array:
    """Rho of weighted items: Pearson's correlation of mid-ranks. Shapes as for :func:`kendall`."""
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
