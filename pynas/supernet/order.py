"""How well shared weights preserve the order of architectures: Kendall's tau with known accuracies."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.ranking.correlation import kendall
from pynas.supernet.evaluation import SubnetEvaluator


@dataclass(frozen=True)
class OrderPreservation:
    """Kendall's tau-b over random architectures (``overall``) and over the most accurate ones (``top``)."""

    overall: float
    top: float


@dataclass(frozen=True)
class OrderReference:
    """Architectures to rank, with known accuracies.

    Attributes:
        random: Drawn uniformly from all known architectures.
        top: Drawn uniformly from the most accurate of them.
    """

    random: tuple[tuple[Architecture, float], ...]
    top: tuple[tuple[Architecture, float], ...]

    @classmethod
    def draw(
        cls, known: Mapping[Architecture, float], count: int = 50, *, top: float = 0.05, seed: int = 0
    ) -> OrderReference:
        """Draw ``count`` known architectures, and ``count`` of the most accurate ``top`` share of them."""
        best = sorted(known, key=lambda arch: (-known[arch], arch.decisions))
        best = best[: max(2, round(top * len(best)))]
        if len(known) < 2 or count < 2:
            raise UserError(f"known, count: expected at least 2 of both, got {len(known):,} and {count:,}")
        rng = random.Random(seed)
        every = sorted(known, key=lambda arch: arch.decisions)

        def some(archs: Sequence[Architecture]) -> tuple[tuple[Architecture, float], ...]:
            return tuple((arch, known[arch]) for arch in rng.sample(archs, min(count, len(archs))))

        return cls(some(every), some(best))

    def measure(self, evaluate: SubnetEvaluator) -> OrderPreservation:
        """Tau between accuracies with shared weights and the known ones; NaN if all of them tie."""
        return OrderPreservation(_tau(evaluate, self.random), _tau(evaluate, self.top))


def _tau(evaluate: SubnetEvaluator, known: Sequence[tuple[Architecture, float]]) -> float:
    found = np.array([score.accuracy for score in evaluate([arch for arch, _ in known])], dtype=np.float64)
    truth = np.array([accuracy for _, accuracy in known], dtype=np.float64)
    return float(kendall(found, truth, np.ones((1, len(truth))))[0])
