"""Evaluated architectures in populations, and their JSON form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pynas.architecture import Architecture
from pynas.ranking.pareto import mean_ranks
from pynas.trial import Status, Trial

Fitness = tuple[float, ...]
Member = tuple[Architecture, Fitness]


def member_of(trial: Trial, objectives: Sequence[str]) -> Member | None:
    """Architecture and scores of a trial; None if it failed or has a score that is not finite.

    Args:
        trial: An evaluated trial.
        objectives: Names of the scores; empty means all scores of the evaluation, sorted by name.
    """
    scores = trial.evaluation.scores
    fitness = tuple([float(scores.get(name, math.nan)) for name in objectives or tuple(sorted(scores))])
    if trial.evaluation.status is not Status.OK or not fitness or not all(map(math.isfinite, fitness)):
        return None
    return trial.architecture, fitness


def ranked(members: Sequence[Member]) -> list[Member]:
    """Members sorted by their mean rank over all scores, best first; equal ones keep their order."""
    ranks = mean_ranks([fitness for _, fitness in members])
    return [members[i] for i in sorted(range(len(members)), key=lambda i: -ranks[i])]


def to_json(members: Iterable[Member]) -> list[Any]:
    """Members as lists of numbers."""
    return [[list(arch.decisions), list(fitness)] for arch, fitness in members]


def from_json(space: str, records: Iterable[Any]) -> list[Member]:
    """What :func:`to_json` made of members of the space called ``space``."""
    return [(Architecture(space, tuple(decisions)), tuple(fitness)) for decisions, fitness in records]
