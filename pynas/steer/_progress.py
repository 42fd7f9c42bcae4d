"""Best trial and Pareto front of a growing list of trials, without looking at all of them each time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pynas.ranking.pareto import mean_ranks
from pynas.run.objectives import axes
from pynas.trial import FIDELITY, Status, Trial


class Progress:
    """What is known of the trials that count: those of the present weights and settings.

    Args:
        objectives: What is searched for, higher is better in scores.
        costs: Names of the costs; if no objective is one, the front has FLOPs as another axis.
        weights: Weights of the objectives, or None.
    """

    def __init__(
        self, objectives: Sequence[str], costs: Sequence[str], weights: Mapping[str, float] | None
    ) -> None:
        self._objectives, self._costs, self._weights = tuple(objectives), tuple(costs), weights
        self.trials: list[Trial] = []
        self._best: tuple[float, Trial] | None = None
        self._front: list[Trial] = []
        self._points = np.zeros((0, 0))
        self._fidelity = -math.inf
        self._ranks: list[float] = []

    def add(self, trial: Trial) -> None:
        """Count a trial; one that is not ok has no place, nor one of a lower fidelity than another."""
        share = trial.evaluation.metrics.get(FIDELITY, 1.0)
        if trial.evaluation.status is not Status.OK or share < self._fidelity:
            return
        if share > self._fidelity:
            self.trials, self._best, self._front, self._fidelity = [], None, [], share
            self._ranks = []
        self.trials.append(trial)
        value = self.single(trial)
        if value is not None and (self._best is None or value > self._best[0]):
            self._best = value, trial
        point = axes([trial], self._objectives, self._costs)
        if not np.isfinite(point).all():
            return
        if self._front:
            at_least, better = (self._points >= point).all(axis=1), (self._points > point).any(axis=1)
            if (at_least & better).any():
                return
            beaten = (point >= self._points).all(axis=1) & (point > self._points).any(axis=1)
            kept = np.logical_not(np.atleast_1d(beaten))
            self._front = [t for t, keep in zip(self._front, kept, strict=True) if keep]
            self._points = np.concatenate([self._points[kept], point])
        else:
            self._points = point
        self._front.append(trial)

    def single(self, trial: Trial) -> float | None:
        """The one number that a trial is judged by; None where several objectives have no weights."""
        scores = trial.evaluation.scores
        if self._weights is not None:
            return weighted(scores, self._weights)
        return scores[self._objectives[0]] if len(self._objectives) == 1 else None

    @property
    def ranks(self) -> bool:
        """Whether values are ranks among all trials that count, rather than numbers of each."""
        return self._weights is None and len(self._objectives) != 1

    def values(self) -> list[float]:
        """A value for each of :attr:`trials`, higher is better: see :meth:`single`; else the mean rank.

        The mean rank over the objectives is scaled to [0, 1].
        """
        if not self.ranks:
            return [self.single(trial) or 0.0 for trial in self.trials]
        if not self.trials:
            return []
        if len(self._ranks) != len(self.trials):
            names = self._objectives
            self._ranks = mean_ranks([[t.evaluation.scores[name] for name in names] for t in self.trials])
        ranks = self._ranks
        low, high = min(ranks), max(ranks)
        return [(rank - low) / (high - low) if high > low else 0.5 for rank in ranks]

    @property
    def best(self) -> Trial | None:
        """The trial of the highest value; the first of equal ones."""
        if self._best is not None:
            return self._best[1]
        values = self.values()
        return self.trials[values.index(max(values))] if values else None

    @property
    def front(self) -> list[Trial]:
        """The trials that no other beats in every axis, by number."""
        return sorted(self._front, key=lambda trial: trial.number)


def weighted(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """``sum_i w_i s_i``; infinite or NaN where scores that large are added up."""
    terms = [weight * scores[name] for name, weight in weights.items()]
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # a partial sum, or infinities of both signs
        return sum(terms)
