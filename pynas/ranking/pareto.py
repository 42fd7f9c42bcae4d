"""Comparing candidates by several scores at once: mean ranks, the Pareto front and how far it reaches."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mean_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """Rank candidates by several scores: r_i = mean_k [#{j: s_jk < s_ik} + (#{j: s_jk = s_ik} - 1) / 2].

    Ranks put scores of different scales on one footing; with a single score the order is the score's own.

    Args:
        scores: One sequence of finite scores per candidate, all of the same length; higher is better.

    Returns:
        One number per candidate, from 0 (worst) to ``len(scores) - 1`` (best); ties share their mean rank.
    """
    totals = [0.0] * len(scores)
    columns = list(zip(*scores, strict=True))
    for column in columns:
        order = sorted(column)
        for i, value in enumerate(column):
            totals[i] += 0.5 * (bisect_left(order, value) + bisect_right(order, value) - 1)
    return [total / max(len(columns), 1) for total in totals]


def pareto_front(points: ArrayLike) -> list[int]:
    """Indices of the points that no other point dominates, in their given order.

    Point a dominates b when a_k >= b_k for every k and a_k > b_k for some k. Equal points do not dominate
    each other.

    Args:
        points: ``[N, K]`` finite numbers, higher is better in every column.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.size == 0:
        return []
    # In descending lexicographic order a point can only be dominated by one before it, and then also by a
    # point of the front so far: so each is compared with the front alone.
    front: list[int] = []
    for i in np.lexsort(values.T[::-1])[::-1].tolist():
        kept = values[front]
        if not ((kept >= values[i]).all(axis=1) & (kept > values[i]).any(axis=1)).any():
            front.append(i)
    return sorted(front)


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume that points dominate above a reference: ``vol(union_i [reference, p_i])``.

    E. Zitzler, L. Thiele, "Multiobjective Evolutionary Algorithms", IEEE TEC 1999. By slices along the last
    axis, which suits fronts of some hundred points on two to four axes.

    Args:
        points: ``[N, K]`` finite numbers, higher is better in every column; those that do not exceed the
            reference in every column add nothing.
        reference: ``[K]``.
    """
    origin = np.asarray(reference, dtype=np.float64)
    values = np.asarray(points, dtype=np.float64).reshape(-1, len(origin)) - origin
    return _volume(values[(values > 0).all(axis=1)])


def _volume(values: NDArray[np.float64]) -> float:
    """:func:`hypervolume` of positive points above zero."""
    if len(values) == 0:
        return 0.0
    if values.shape[1] == 1:
        return float(values.max())
    values = values[pareto_front(values)]
    values = values[np.argsort(-values[:, -1], kind="stable")]
    if values.shape[1] == 2:  # along the front one coordinate falls while the other rises
        rise = np.diff(np.maximum.accumulate(values[:, 0]), prepend=0.0)
        return float((rise * values[:, 1]).sum())
    thickness = values[:, -1] - np.append(values[1:, -1], 0.0)
    return float(sum(d * _volume(values[: i + 1, :-1]) for i, d in enumerate(thickness.tolist()) if d > 0))


def inverted_generational_distance(front: ArrayLike, points: ArrayLike) -> float:
    """``IGD = mean over f in front of min over p in points of ||f - p||``; NaN without points.

    C. Coello Coello, M. Reyes Sierra, MICAI 2004.

    Args:
        front: ``[N, K]`` the true front.
        points: ``[M, K]`` what was found, on the same scales.
    """
    a, b = np.asarray(front, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if len(a) == 0 or len(b) == 0:
        return float("nan")
    return float(np.mean([np.sqrt(((b - f) ** 2).sum(axis=1)).min() for f in a]))
