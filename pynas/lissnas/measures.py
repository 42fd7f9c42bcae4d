"""How local a space is, and how good, small and diverse a part of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

Quality = Callable[[Architecture], float]


def autocorrelation(
    space: SearchSpace, quality: Quality, *, lags: int = 6, steps: int = 10_000, seed: int = 0
) -> list[float]:
    r"""``rho(h) = cov(f_t, f_{t+h}) / var(f)`` along a random walk of mutations, h = 1 .. ``lags``.

    The random-walk autocorrelation of a fitness landscape (E. Weinberger, Biological Cybernetics 1990): 1
    where neighbours are equally good, 0 where they tell nothing of each other. LISSNAS rests on it being
    high for small h.

    Args:
        space: Where to walk.
        quality: f, a finite number for every architecture; asked once for each distinct one.
        lags: Largest number of mutations apart.
        steps: Length of the walk.
        seed: Of the start and the walk.

    Raises:
        UserError: ``steps`` is not larger than ``lags``, f is not finite somewhere, or constant on the walk.
    """
    if not 1 <= lags < steps:
        raise UserError(f"lags, steps: expected 1 <= lags < steps, got {lags} and {steps}")
    rng = random.Random(seed)
    known: dict[Architecture, float] = {}
    arch = space.sample(rng)
    values = np.empty(steps)
    for t in range(steps):
        if arch not in known:
            known[arch] = finite_quality(space, quality, arch)
        values[t] = known[arch]
        arch = space.mutate(arch, rng)
    centred = values - values.mean()
    variance = float(centred @ centred) / steps
    if variance == 0:
        raise UserError(f"quality: is {values[0]} everywhere on the walk; its autocorrelation is not defined")
    return [float(centred[:-h] @ centred[h:]) / (steps - h) / variance for h in range(1, lags + 1)]


def finite_quality(space: SearchSpace, quality: Quality, arch: Architecture) -> float:
    """``quality(arch)``; UserError if it is not a finite number."""
    value = quality(arch)
    if not math.isfinite(value):
        raise UserError(f"quality: expected a finite number for {space.format(arch)}, got {value}")
    return value


def diversity(
    space: SearchSpace, architectures: Sequence[Architecture], *, pairs: int = 10_000, seed: int = 0
) -> float:
    """Mean distance between two different members; all pairs where there are at most ``pairs``, else drawn.

    Returns:
        Moves, as :meth:`SearchSpace.distance` counts them; NaN for fewer than two members.
    """
    count = len(architectures)
    if count < 2:
        return math.nan
    if count * (count - 1) // 2 <= pairs:
        chosen = [(i, j) for i in range(count) for j in range(i)]
    else:
        rng = random.Random(seed)
        chosen = []
        while len(chosen) < pairs:
            i, j = rng.randrange(count), rng.randrange(count)
            if i != j:
                chosen.append((i, j))
    return sum(space.distance(architectures[i], architectures[j]) for i, j in chosen) / len(chosen)


def pockets(space: SearchSpace, architectures: Collection[Architecture]) -> list[list[Architecture]]:
    """The parts of a set that moves within it connect, the largest first."""
    left = dict.fromkeys(architectures)
    found = []
    while left:
        pocket = [next(iter(left))]
        del left[pocket[0]]
        for arch in pocket:  # grows while it is walked
            for neighbour in space.neighbours(arch):
                if neighbour in left:
                    del left[neighbour]
                    pocket.append(neighbour)
        found.append(pocket)
    return sorted(found, key=len, reverse=True)


def shrink_index(
    quality_before: float, quality_after: float, best: float, size_before: float, size_after: float
) -> float:
    r"""``SI = (q_after - q_before) / (q_best - q_before) * (1 - ln n_after / ln n_before)``, in (-inf, 1].

    The share of the possible gain in mean quality q that shrinking from n_before to n_after architectures
    made, times the share of the space's logarithmic size that it took away: 1 for a space shrunk to its best
    architecture alone, 0 where nothing was gained or nothing left out, negative where good architectures
    were lost. The paper defines an index of this name by gain and reduction; its formula was not available,
    so this one is pynas's own.

    Raises:
        UserError: The best is not better than the mean before, or the sizes do not shrink.
    """
    if not best > quality_before:
        raise UserError(f"best: expected more than the mean before, {quality_before}, got {best}")
    if not 1 <= size_after <= size_before or size_before <= 1:
        raise UserError(
            f"size_after: expected 1 to size_before, {size_before:g} (more than 1), got {size_after:g}"
        )
    gain = (quality_after - quality_before) / (best - quality_before)
    return gain * (1 - math.log(size_after) / math.log(size_before))
