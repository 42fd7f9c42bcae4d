"""What picking by an estimate finds, and what pruning by it removes.

These measures complement rank correlation: shared weights may find good architectures and miss the best, or
identify the worst more reliably than the best (Y. Zhang, Q. Zhang, Y. Yang, "How Does Weight Sharing Help in
Neural Architecture Search?", arXiv:2010.08219).

Accuracies on few validation images tie. If k of several equal estimates have to be taken, every choice of k
is equally probable, and the result is the exact expectation over that choice. So the chance level of each
measure is its value for estimates that are all equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pynas._errors import UserError
from pynas.analysis.checks import Floats, finite, members


@dataclass(frozen=True, slots=True)
class Pick:
    """The best, by ground truth y, of the k architectures with the highest estimates.

    Attributes:
        count: k.
        regret: Expected ``max_i y_i - max_{i in picked} y_i``, in the unit of y.
        rank: Expected rank by y of the best picked; 1 is the best of all, equal ones share the best rank.
        percentile: ``(rank - 1) / (N - 1)``; 0 is the best of all.
        found: By share q, the probability that at least one picked architecture is among the ``ceil(q N)``
            best by y, including those equal to the last of them.
    """

    count: int
    regret: float
    rank: float
    percentile: float
    found: dict[float, float]


@dataclass(frozen=True, slots=True)
class Pruning:
    """The effect of removing the share of architectures with the lowest estimates.

    Attributes:
        share: Share that is removed.
        count: Number of architectures that are removed, ``ceil(share N)``, at most N - 1.
        worst_removed: Share of the ``count`` worst by ground truth that is removed; ``count / N`` by chance.
        best_lost: By share q, the share of the ``ceil(q N)`` best by ground truth that is removed.
        gain: Mean ground truth of the remaining architectures minus that of all.
        best_left: Expected ground truth of the best remaining one minus that of the best of all, at most 0.
    """

    share: float
    count: int
    worst_removed: float
    best_lost: dict[float, float]
    gain: float
    best_left: float


def in_top(values: ArrayLike, count: int) -> Floats:
    """Probability of each to be among the ``count`` highest: 1, 0, or r / g for r places among g ties."""
    array = finite("values", values)
    if not 0 <= count <= len(array):
        raise UserError(f"count: expected 0 to {len(array)}, got {count}")
    if count == 0:
        return np.zeros(len(array))
    threshold = np.sort(array)[len(array) - count]
    above, equal = array > threshold, array == threshold
    result: Floats = above.astype(np.float64)
    result[equal] = (count - above.sum()) / equal.sum()
    return result


def overlap(estimates: ArrayLike, truth: ArrayLike, share: float) -> float:
    """Expected share of the ``m = ceil(share N)`` best by ground truth among the m best by estimate.

    For the worst, negate both. The chance level is ``m / N``.
    """
    known = finite("truth", truth)
    count = members(share, len(known))
    both = in_top(finite("estimates", estimates, count=len(known)), count) @ in_top(known, count)
    return float(both / count)


def pick(estimates: ArrayLike, truth: ArrayLike, count: int, shares: tuple[float, ...] = (0.01, 0.1)) -> Pick:
    """Take the ``count`` architectures with the highest estimates, then the best of them by ground truth.

    Args:
        estimates: ``[N]``, higher is better.
        truth: ``[N]``.
        count: Number to pick, 1 to N.
        shares: Shares q of :attr:`Pick.found`.
    """
    known = finite("truth", truth)
    guess = finite("estimates", estimates, count=len(known))
    if not 1 <= count <= len(known):
        raise UserError(f"count: expected a number to pick in 1..{len(known)}, got {count}")
    best, probability = _best_of(guess, known, count)
    ranks = 1 + (known[None, :] > best[:, None]).sum(axis=1)
    rank = float(probability @ ranks)
    found = {}
    for share in shares:
        threshold = np.sort(known)[len(known) - members(share, len(known))]
        found[share] = float(probability[best >= threshold].sum())
    return Pick(
        count,
        float(probability @ (known.max() - best)),
        rank,
        (rank - 1) / max(1, len(known) - 1),
        found,
    )


def prune(
    estimates: ArrayLike, truth: ArrayLike, share: float, shares: tuple[float, ...] = (0.01, 0.1)
) -> Pruning:
    """Remove the ``share`` of the architectures that has the lowest estimates.

    Args:
        estimates: ``[N]``, higher is better; N is at least 2.
        truth: ``[N]``.
        share: Share to remove, in (0, 1).
        shares: Shares q of :attr:`Pruning.best_lost`.
    """
    known = finite("truth", truth)
    guess = finite("estimates", estimates, count=len(known))
    count = members(share, len(known))
    if len(known) < 2:
        raise UserError(f"truth: expected at least 2 architectures to prune, got {len(known)}")
    count = min(count, len(known) - 1)
    removed = in_top(-guess, count)
    lost = {}
    for part in shares:
        size = members(part, len(known))
        lost[part] = float(removed @ in_top(known, size) / size)
    best, probability = _best_of(guess, known, len(known) - count)
    return Pruning(
        share,
        count,
        float(removed @ in_top(-known, count) / count),
        lost,
        float((1 - removed) @ known / (len(known) - count) - known.mean()),
        float(probability @ (best - known.max())),
    )


def _best_of(estimates: Floats, truth: Floats, count: int) -> tuple[Floats, Floats]:
    """Distribution of the highest truth among the ``count`` highest estimates: values and probabilities.

    If r places remain for g equal estimates with truths t_1 >= ... >= t_g, the best of those taken is t_j
    with probability C(g - j, r - 1) / C(g, r).
    """
    threshold = np.sort(estimates)[len(estimates) - count]
    sure = truth[estimates > threshold]
    drawn = np.sort(truth[estimates == threshold])[::-1]
    places, size = count - len(sure), len(drawn)
    # Multiply ratios of adjacent binomials, (g - j - r + 1) / (g - j), to avoid overflow.
    steps = np.arange(1, size - places + 1)
    ratios = (size - steps - places + 1) / (size - steps)
    probability = places / size * np.concatenate(([1.0], np.cumprod(ratios)))
    best = drawn[: len(probability)]
    return (np.maximum(best, sure.max()) if len(sure) else best), probability
