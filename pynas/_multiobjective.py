"""Comparing candidates by several scores at once: mean ranks, and the Pareto front."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


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
