"""How much estimates change between runs, and how much of that changes their order.

Runs are seeds of a supernet's training, or its last checkpoints (the instance variance of Y. Zhang et al.,
"Deeper Insights into Weight Sharing in Neural Architecture Search", arXiv:2001.01431).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pynas._errors import UserError
from pynas.analysis.checks import Floats, finite
from pynas.ranking.correlation import kendall


@dataclass(frozen=True, slots=True)
class Stability:
    r"""Stability of the estimates ``x_ri`` of N architectures in R runs.

    Attributes:
        runs: R.
        std: ``sqrt(mean_i Var_r x_ri)``, variances with R - 1 degrees of freedom.
        std_centred: The same without shifts common to all architectures of a run: standard deviation of the
            residuals ``x_ri - mean_i x_ri - mean_r x_ri + mean x``, with (R - 1)(N - 1) degrees of freedom.
        spread: ``Std_i mean_r x_ri`` with N - 1 degrees of freedom: the differences that runs agree on, plus
            noise / R.
        reliability: ``v / (v + std_centred^2)`` with ``v = max(0, spread^2 - std_centred^2 / R)``, the
            intraclass correlation ICC(3,1): the share of a single run's variance that the architectures
            explain. NaN if both are zero.
        rank_std: As ``std``, for mid-ranks divided by N.
        tau: Mean of Kendall's tau-b over all pairs of runs; NaN if all estimates of a run are equal.
        tau_lowest: The lowest tau-b of a pair.
        tau_consecutive: Tau-b of runs r and r + 1, for each r.
        best_regret: Mean over ordered pairs of runs of the regret, in the second run, of the architecture
            that is best in the first (the mean over equally good ones).
    """

    runs: int
    std: float
    std_centred: float
    spread: float
    reliability: float
    rank_std: float
    tau: float
    tau_lowest: float
    tau_consecutive: tuple[float, ...]
    best_regret: float


def stability(estimates: ArrayLike) -> Stability:
    """Compare runs.

    Args:
        estimates: ``[R, N]``, at least 2 runs of 2 architectures; in order of time if there is one.
    """
    runs = finite("estimates", estimates, 2)
    count, items = runs.shape
    if count < 2 or items < 2:
        raise UserError(f"estimates: expected at least 2 runs of 2 architectures, got {count} of {items}")
    residuals = runs - runs.mean(axis=1, keepdims=True) - runs.mean(axis=0) + runs.mean()
    noise = float((residuals**2).sum() / ((count - 1) * (items - 1)))
    spread = float(runs.mean(axis=0).var(ddof=1))
    signal = max(0.0, spread - noise / count)
    taus = {(a, b): _tau(runs[a], runs[b]) for a in range(count) for b in range(a + 1, count)}
    ranks = np.stack([mid_ranks(row) for row in runs]) / items
    shortfalls = [
        runs[b].max() - runs[b][runs[a] == runs[a].max()].mean()
        for a in range(count)
        for b in range(count)
        if a != b
    ]
    return Stability(
        runs=count,
        std=math.sqrt(runs.var(axis=0, ddof=1).mean()),
        std_centred=math.sqrt(noise),
        spread=math.sqrt(spread),
        reliability=signal / (signal + noise) if signal + noise > 0 else math.nan,
        rank_std=math.sqrt(ranks.var(axis=0, ddof=1).mean()),
        tau=float(np.mean(list(taus.values()))),
        tau_lowest=float(np.min(list(taus.values()))),
        tau_consecutive=tuple(taus[r, r + 1] for r in range(count - 1)),
        best_regret=float(np.mean(shortfalls)),
    )


def mid_ranks(values: Floats) -> Floats:
    """Ranks from 1, the lowest value first; equal values share their mean rank."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    ranks: Floats = (below + not_above + 1) / 2
    return ranks


def _tau(x: Floats, y: Floats) -> float:
    return float(kendall(x, y, np.ones((1, len(x))))[0])
