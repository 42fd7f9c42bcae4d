"""How much better than the mean candidates with a block are, and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pynas.steer._settings import block_id

RESAMPLES, FEWEST_RESAMPLES = 1000, 200
LEVEL = 0.95
THIN = 5
"""Fewer candidates with a block than this are thin evidence, whatever the interval says."""

_NUMBERS = 4_000_000  # of a table of resamples by trials


@dataclass(frozen=True)
class BlockFitness:
    """The evidence for or against one choice.

    Attributes:
        id: The block, ``decision:choice``.
        n: Number of evaluated candidates with it.
        frequency: Their share of all evaluated candidates.
        mean: Mean value of candidates with it; NaN if there are none.
        fitness: ``mean(value | block) - mean(value)``.
        low: Lower end of the interval of ``fitness``.
        high: Upper end.
        thin: Whether the evidence is too thin to act on: n below ``THIN``, or an interval that contains zero.
        verdict: ``good`` or ``bad`` where the interval excludes zero and the evidence is not thin, else
            ``unclear``.
    """

    id: str
    n: int
    frequency: float
    mean: float
    fitness: float
    low: float
    high: float
    thin: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; NaN becomes None."""
        facts: dict[str, Any] = {"id": self.id, "n": self.n, "frequency": self.frequency}
        for name in ("mean", "fitness", "low", "high"):
            value = getattr(self, name)
            facts[name] = value if math.isfinite(value) else None
        return facts | {"thin": self.thin, "verdict": self.verdict}


def block_fitness(
    decisions: Sequence[Sequence[int]],
    values: Sequence[float],
    num_choices: Sequence[int],
    *,
    seed: int = 0,
) -> list[BlockFitness]:
    r"""Fitness of every choice of every decision: ``f = mean_{a : a_d = c} v_a - mean_a v_a``.

    The interval is that of the percentile bootstrap over candidates: 1,000 resamples (fewer, down to 200,
    beyond 4,000 candidates), of which those without the block are left out. It says how far the mean would
    move with other candidates of the same search; it does not say that the block is the cause, since a search
    combines good blocks with good ones.

    Args:
        decisions: ``[N, D]``, the evaluated candidates.
        values: ``[N]``, finite, higher is better.
        num_choices: ``[D]``.
        seed: Seed of the resamples.

    Source of the view: A. Tyagi, C. Xie, K. Mueller, "NAS-Navigator", IEEE TVCG 2022, arXiv:2009.13008, which
    does not publish its rule of fitness; this one is pynas's own.
    """
    count = len(values)
    ids = [block_id(d, c) for d, choices in enumerate(num_choices) for c in range(choices)]
    if not count:
        nan = math.nan
        return [BlockFitness(each, 0, 0.0, nan, nan, nan, nan, True, "unclear") for each in ids]
    table = np.asarray(decisions, dtype=np.int64).reshape(count, len(num_choices))
    has = np.concatenate(
        [table[:, d, None] == np.arange(choices) for d, choices in enumerate(num_choices)], axis=1
    ).astype(np.float64)  # [N, blocks]
    v = np.asarray(values, dtype=np.float64)
    n = has.sum(axis=0)
    mean = v.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(n > 0, (has * v[:, None]).sum(axis=0) / n, np.nan)
    low, high = _interval(has, v - mean, seed)  # centred: differences of means do not depend on a shift
    found = []
    for i, each in enumerate(ids):
        known = n[i] > 0
        thin = n[i] < THIN or not (low[i] > 0 or high[i] < 0)
        verdict = "unclear" if thin else "good" if low[i] > 0 else "bad"
        found.append(
            BlockFitness(
                each,
                int(n[i]),
                float(n[i] / count),
                float(means[i]),
                float(means[i] - mean),
                float(low[i]) if known else math.nan,
                float(high[i]) if known else math.nan,
                bool(thin),
                verdict,
            )
        )
    return found


def _interval(has: np.ndarray, v: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends for each block; NaN for blocks that no candidate has."""
    count = len(v)
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, _NUMBERS // count))
    rng = np.random.default_rng([seed & 0xFFFFFFFF, count])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    with_block = weights @ has  # [resamples, blocks]
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = (weights @ (has * v[:, None])) / with_block - (weights @ v / count)[:, None]
    ends = np.full((2, has.shape[1]), np.nan)
    tail = (1 - LEVEL) / 2
    for block in range(has.shape[1]):
        finite = differences[with_block[:, block] > 0, block]
        if len(finite):
            ends[:, block] = np.quantile(finite, [tail, 1 - tail])
    return ends[0], ends[1]
