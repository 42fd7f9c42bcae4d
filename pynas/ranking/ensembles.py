"""Ensembles: several scores of a population of architectures as one. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pynas._errors import UserError
from pynas.trial import Trial

_PAIRS = 1 << 24  # comparisons held at a time


def vote(scores: Mapping[str, Sequence[float]]) -> list[float]:
    r"""Share of the others that an architecture beats by majority, sum_{j != i} v_ij / (N - 1).

    ``v_ij`` is 1 where more scores put i above j than j above i, 1/2 where as many, else 0: the pairwise
    majority of the zero-cost proxies, counted over the population (A. Copeland, 1951), which makes an order
    of it although majorities need not be transitive. With ``synflow``, ``jacob_cov`` and ``snip`` it is the
    published ``vote`` (Abdelfattah, Mehrotra, Dudziak, Lane, ICLR 2021).

    Args:
        scores: ``[N]`` numbers by name, higher is better. A NaN (no score) is below every number.

    Returns:
        ``[N]`` numbers in [0, 1].

    Raises:
        UserError: No scores, or lengths that differ.
    """
    ranks = _ranks(scores)
    proxies, count = ranks.shape
    if count < 2:
        return [0.5] * count
    won = np.zeros(count)
    step = max(1, _PAIRS // (count * proxies))
    for start in range(0, count, step):
        balance = np.sign(ranks[:, start : start + step, None] - ranks[:, None, :]).sum(0)
        won[start : start + step] = (np.sign(balance).sum(1) + count) / 2 - 0.5
    return [float(value) for value in won / (count - 1)]


def rank_sum(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Mean over scores of the share of the others that an architecture is above; ties count one half.

    A monotone function of the sum of ranks (J. C. de Borda, 1781).

    Args:
        scores: ``[N]`` numbers by name, higher is better. A NaN (no score) is below every number.

    Returns:
        ``[N]`` numbers in [0, 1].

    Raises:
        UserError: No scores, or lengths that differ.
    """
    ranks = _ranks(scores)
    count = ranks.shape[1]
    if count < 2:
        return [0.5] * count
    total = ranks.sum(0)  # of halves, so exact: equal sums stay equal
    return [float(value) for value in (total - len(ranks)) / (len(ranks) * (count - 1))]


ENSEMBLES: Mapping[str, Callable[[Mapping[str, Sequence[float]]], list[float]]] = {
    "rank_sum": rank_sum,
    "vote": vote,
}


def _ranks(scores: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    """Mid-ranks from 1, ``[P, N]``; NaN ranks as minus infinity."""
    lengths = {len(values) for values in scores.values()}
    if len(lengths) != 1:
        raise UserError(
            f"scores: expected one or more lists of the same length, got lengths {sorted(lengths)}"
            if lengths
            else "scores: an ensemble needs at least one list of scores, got none"
        )
    table = np.array([list(map(float, values)) for values in scores.values()])
    return np.asarray(stats.rankdata(np.where(np.isnan(table), -np.inf, table), axis=1), dtype=np.float64)


def split(text: str) -> list[str]:
    """Split ``"zico, vote(synflow,snip)"`` at the commas outside of parentheses; empty names vanish."""
    names = re.findall(r"(?:[^,()]|\([^()]*\))+", text)
    return [name.strip() for name in names if name.strip()]


def members(name: str) -> list[str]:
    """The scores that ``vote(a,b)`` is made of; empty for the name of a single score.

    Raises:
        UserError: Unknown ensemble, or fewer than two members.
    """
    found = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", name)
    if found is None:
        return []
    kind, inner = found.groups()
    chosen = [part.strip() for part in inner.split(",") if part.strip()]
    if kind not in ENSEMBLES:
        raise UserError(f"unknown ensemble {kind!r} in {name!r}; known: {', '.join(ENSEMBLES)}")
    if len(set(chosen)) < 2:
        raise UserError(f"{name!r}: an ensemble needs two different proxies or more, got {chosen}")
    return list(dict.fromkeys(chosen))


def singles(names: Sequence[str]) -> list[str]:
    """The scores that have to be known for ``names``, each once, in order."""
    return list(dict.fromkeys(single for name in names for single in members(name) or [name]))


def with_ensembles(trials: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """The trials with the ensembles among ``names`` added to their scores: those of this population.

    Members may be scores or metrics (``params``, ``flops``) of the trials.
    """
    added: dict[str, list[float]] = {}
    for name in names:
        chosen = members(name)
        if chosen:
            columns = {single: [_known(trial, single) for trial in trials] for single in chosen}
            added[name] = ENSEMBLES[name.split("(")[0].strip()](columns)
    return [
        replace(
            trial,
            evaluation=replace(
                trial.evaluation,
                scores={**trial.evaluation.scores, **{name: values[i] for name, values in added.items()}},
            ),
        )
        for i, trial in enumerate(trials)
    ]


def _known(trial: Trial, name: str) -> float:
    scores, metrics = trial.evaluation.scores, trial.evaluation.metrics
    return scores[name] if name in scores else metrics.get(name, float("nan"))
