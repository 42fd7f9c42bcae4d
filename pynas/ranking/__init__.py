"""How well scores rank: correlations with known accuracies, Pareto fronts, ensembles of scores."""

from __future__ import annotations

from pynas.ranking.fronts import ChosenFront, FrontComparison, compare_fronts
from pynas.ranking.rank import BASELINES, Correlation, Estimate, Ranking, rank_scores, rank_trials

__all__ = [
    "BASELINES",
    "ChosenFront",
    "Correlation",
    "Estimate",
    "FrontComparison",
    "Ranking",
    "compare_fronts",
    "rank_scores",
    "rank_trials",
]
