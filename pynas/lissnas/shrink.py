"""Shrinking a space to pockets around good seeds, again and again until that no longer helps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.lissnas.measures import Quality, diversity, finite_quality
from pynas.spaces import SearchSpace, Subset, subset


@dataclass(frozen=True)
class Iteration:
    """One round of shrinking.

    Attributes:
        number: From 1.
        size: Architectures in the space after the round.
        quality: Mean quality of ``samples`` architectures drawn from that space.
        best: Best quality seen so far.
        diversity: Mean distance between two of its architectures.
        queries: Distinct architectures whose quality has been asked for so far.
    """

    number: int
    size: int
    quality: float
    best: float
    diversity: float
    queries: int


@dataclass(frozen=True)
class Shrinkage:
    """What shrinking gave.

    Attributes:
        space: The shrunk space: a search space for every strategy.
        iterations: Every round, the one that made things worse and was undone included.
        quality_before: Mean quality of the first sample, of the whole space.
        known: Quality of every architecture asked for.
    """

    space: Subset
    iterations: tuple[Iteration, ...]
    quality_before: float
    known: dict[Architecture, float]


def lissnas(
    space: SearchSpace,
    quality: Quality,
    *,
    samples: int = 100,
    seeds: int = 10,
    radius: int = 2,
    max_iterations: int = 10,
    max_size: int = 100_000,
    seed: int = 0,
    on_iteration: Callable[[Iteration], None] | None = None,
) -> Shrinkage:
    """Keep what is near good architectures; repeat within what was kept while its mean quality rises.

    Each round draws ``samples`` architectures of the present space (all of it where it has no more), takes
    the best ``seeds`` of everything seen in it, and keeps what lies within ``radius`` moves of one of them.
    A round after which the mean quality of a fresh sample is not higher than before is undone and ends the
    shrinking, as the paper has it; so does a round that leaves the space as it is. From the second round on
    the radius shrinks by one a round down to 1: pockets around better seeds can be smaller.

    The paper shrinks by a predictor or shared weights where networks cannot be trained: give that as
    ``quality``. Numbers of samples and seeds, radius and its schedule are pynas's own choices; on
    NAS-Bench-201 locality reaches some three moves far (see :func:`pynas.lissnas.autocorrelation`).

    Args:
        space: What to shrink, also an open-ended one.
        quality: Higher is better; a finite number for every architecture; asked once for each.
        samples: Architectures drawn a round, at least ``seeds``.
        seeds: Architectures whose surroundings are kept.
        radius: Moves from a seed in the first round.
        max_iterations: Rounds at most.
        max_size: Architectures to keep at most; beyond, those further from the seeds are left out at random.
        seed: Of all draws.
        on_iteration: Called after each round.

    Returns:
        The shrunk space and how it came about. The same arguments give the same space.

    Raises:
        UserError: Sizes that make no sense, or a quality that is not finite.
    """
    if not 1 <= seeds <= samples or radius < 1 or max_iterations < 1 or max_size < seeds:
        raise UserError(
            "lissnas: expected 1 <= seeds <= samples, radius and max_iterations of at least 1 and max_size "
            f">= seeds, got seeds={seeds}, samples={samples}, radius={radius}, "
            f"max_iterations={max_iterations}, max_size={max_size}"
        )
    rng = random.Random(seed)
    known: dict[Architecture, float] = {}

    def ask(architectures: Iterable[Architecture]) -> float:
        """Mean quality; what is new is remembered."""
        values = []
        for arch in architectures:
            if arch not in known:
                known[arch] = finite_quality(space, quality, arch)
            values.append(known[arch])
        return sum(values) / len(values)

    drawn = _draw(space, samples, rng)
    before = mean = ask(drawn)
    present: Subset | None = None
    iterations: list[Iteration] = []
    for number in range(1, max_iterations + 1):
        inside = known if present is None else {a: q for a, q in known.items() if present.contains(a)}
        best = sorted(inside, key=lambda arch: -inside[arch])[:seeds]
        kept = _surroundings(present or space, best, max(1, radius - number + 1), max_size, rng)
        if present is not None and len(kept) == present.size:
            break
        shrunk = subset(space, kept)
        drawn = _draw(shrunk, samples, rng)
        after = ask(drawn)
        report = Iteration(
            number=number,
            size=shrunk.size,
            quality=after,
            best=max(known.values()),
            diversity=diversity(shrunk, shrunk.members, seed=seed),
            queries=len(known),
        )
        iterations.append(report)
        if on_iteration is not None:
            on_iteration(report)
        if present is not None and after <= mean:
            break
        present, mean = shrunk, after
    assert present is not None
    return Shrinkage(present, tuple(iterations), before, known)


def _draw(space: SearchSpace, samples: int, rng: random.Random) -> list[Architecture]:
    """Distinct architectures, all of them where there are no more than ``samples``."""
    if space.size is not None and space.size <= samples:
        return list(space.all())
    found: dict[Architecture, None] = {}
    while len(found) < samples:
        found[space.sample(rng)] = None
    return list(found)


def _surroundings(
    space: SearchSpace, seeds: list[Architecture], radius: int, max_size: int, rng: random.Random
) -> list[Architecture]:
    """The seeds and what is within ``radius`` moves of one, ring by ring."""
    kept = dict.fromkeys(seeds)
    ring = list(seeds)
    for _ in range(radius):
        outer: dict[Architecture, None] = {}
        for arch in ring:
            for neighbour in space.neighbours(arch):
                if neighbour not in kept:
                    outer[neighbour] = None
        ring = list(outer)
        room = max_size - len(kept)
        if len(ring) > room:
            ring = rng.sample(ring, room)
        kept |= dict.fromkeys(ring)
    return list(kept)
