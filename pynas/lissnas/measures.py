"""Measures of the locality of a space, and of the quality, size and diversity of a part of it."""

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

    The random-walk autocorrelation of a fitness landscape (E. Weinberger, Biological Cybernetics 1990): 1 if
    neighbours are equally good, 0 if their qualities are independent. LISSNAS assumes that it is high for
    small h.

    Args:
        space: The space to walk in.
        quality: f, a finite number for every architecture; called once for each distinct one.
        lags: Largest lag, in mutations.
        steps: Length of the walk.
        seed: Seed of the start and the walk.

    Raises:
        UserError: ``steps`` is not larger than ``lags``, or f is not finite or is constant on the walk.
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
        raise UserError(f"quality: {values[0]} everywhere on the walk; its autocorrelation is not defined")
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
    """Mean distance between two members, over all pairs, or over ``pairs`` random ones if there are more.

    Returns:
        Moves, as counted by :meth:`SearchSpace.distance`; NaN for fewer than two members.
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
    """The connected components of a set under moves within it, the largest first."""
    left = dict.fromkeys(architectures)
    found = []
    while left:
        pocket = [next(iter(left))]
        del left[pocket[0]]
        for arch in pocket:  # grows during the iteration
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

    The achieved share of the possible gain in mean quality q, times the share of the logarithmic size that
    was removed by shrinking from n_before to n_after architectures. It is 1 for a space shrunk to just its
    best architecture, 0 if nothing was gained or removed, and negative if good architectures were lost. The
    paper defines an index of this name by gain and reduction; its formula was not available, so this one is
    pynas's own.

    Raises:
        UserError: The best is not better than the mean before, or the sizes are out of range.
    """
    if not best > quality_before:
        raise UserError(f"best: expected more than the mean before, {quality_before}, got {best}")
    if not 1 <= size_after <= size_before or size_before <= 1:
        raise UserError(
            f"size_after: expected 1 to size_before, {size_before:g} (more than 1), got {size_after:g}"
        )
    gain = (quality_after - quality_before) / (best - quality_before)
    return gain * (1 - math.log(size_after) / math.log(size_before))
