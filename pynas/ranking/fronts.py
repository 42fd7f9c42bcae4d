"""Pareto fronts that scores choose, against the true one.

The protocol of G. Li et al., "Zero-Shot Neural Architecture Search: Challenges, Solutions, and
Opportunities", TPAMI 2024, arXiv:2307.01998: a proxy stands in for accuracy, the front of proxy and cost is
taken, and the architectures on it are judged by their accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pynas._errors import UserError
from pynas._plural import counted
from pynas.ranking.pareto import hypervolume, inverted_generational_distance, pareto_front


@dataclass(frozen=True, slots=True)
class ChosenFront:
    """The front of a score and a cost, judged by accuracy.

    Attributes:
        members: Positions of its architectures.
        hypervolume_ratio: Volume that they dominate over that of the true front, in [0, 1]. The reference is
            the lowest accuracy and the highest cost of all architectures.
        distance: Inverted generational distance: mean distance from an architecture on the true front to the
            nearest chosen one, accuracy and cost each scaled to [0, 1] over all architectures.
    """

    members: tuple[int, ...]
    hypervolume_ratio: float
    distance: float


@dataclass(frozen=True, slots=True)
class FrontComparison:
    """Fronts under one cost.

    Attributes:
        cost: Name of the cost.
        truth: Positions of the architectures on the front of accuracy and cost.
        chosen: What each score chooses, by name.
        count: Architectures with a known cost.
    """

    cost: str
    truth: tuple[int, ...]
    chosen: Mapping[str, ChosenFront]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return {
            "cost": self.cost,
            "architectures": self.count,
            "true_front": len(self.truth),
            "scores": {
                name: {
                    "front": len(front.members),
                    "hypervolume_ratio": front.hypervolume_ratio,
                    "distance": front.distance,
                }
                for name, front in self.chosen.items()
            },
        }


def compare_fronts(
    scores: Mapping[str, Sequence[float]], accuracy: Sequence[float], cost: str, costs: Sequence[float]
) -> FrontComparison:
    """Compare the front that each score chooses with the true one.

    Args:
        scores: ``[N]`` numbers by name, higher is better; an architecture without a finite one cannot be
            chosen by that score.
        accuracy: ``[N]`` finite numbers.
        cost: Name of the cost.
        costs: ``[N]`` numbers, lower is better; NaN leaves the architecture out altogether.

    Raises:
        UserError: No architecture has a known cost.
    """
    known = np.flatnonzero(np.isfinite(np.asarray(costs, dtype=np.float64)))
    if len(known) == 0:
        raise UserError(f"{cost} is not known for any of {counted(len(accuracy), 'architecture')}")
    plane = np.stack([np.asarray(accuracy)[known], -np.asarray(costs)[known]], axis=1).astype(np.float64)
    low, width = plane.min(axis=0), np.ptp(plane, axis=0)
    scaled = (plane - low) / np.where(width > 0, width, 1.0)
    truth = pareto_front(scaled)
    best = hypervolume(scaled[truth], np.zeros(2))
    chosen = {}
    for name, values in scores.items():
        score = np.asarray(values, dtype=np.float64)[known]
        finite = np.flatnonzero(np.isfinite(score))
        front = finite[pareto_front(np.stack([score[finite], scaled[finite, 1]], axis=1))]
        chosen[name] = ChosenFront(
            members=tuple(known[front].tolist()),
            hypervolume_ratio=hypervolume(scaled[front], np.zeros(2)) / best if best > 0 else 1.0,
            distance=inverted_generational_distance(scaled[truth], scaled[front]),
        )
    return FrontComparison(cost, tuple(known[truth].tolist()), chosen, len(known))
