"""Shrinks a space to pockets around good seeds, repeatedly until that no longer helps."""

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
        number: Number of the round, from 1.
        size: Number of architectures in the space after the round.
        quality: Mean quality of ``samples`` architectures drawn from that space.
        best: Best quality so far.
        diversity: Mean distance between two of its architectures.
        queries: Number of distinct architectures evaluated so far.
    """

    number: int
    size: int
    quality: float
    best: float
    diversity: float
    queries: int


@dataclass(frozen=True)
class Shrinkage:
    """The result of shrinking.

    Attributes:
        space: The shrunk space, which every strategy can search.
        iterations: All rounds, including the last one, which was undone because it made things worse.
        quality_before: Mean quality of the first sample of the whole space.
        known: Quality of every evaluated architecture.
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
    """Keep the surroundings of good architectures; repeat while the mean quality of the kept space rises.

    Each round draws ``samples`` architectures from the current space (all if it has fewer), takes the best
    ``seeds`` of all evaluated ones in it, and keeps what is within ``radius`` moves of one of them. As in the
    paper, a round that does not increase the mean quality of a new sample is undone and ends the shrinking. A
    round that does not change the space also ends it. From the second round on, the radius decreases by one
    per round down to 1, since pockets around better seeds can be smaller.

    If networks cannot be trained, the paper uses a predictor or shared weights: pass these as ``quality``.
    The numbers of samples and seeds, the radius and its schedule are pynas's own choices; on NAS-Bench-201
    locality extends over about three moves (see :func:`pynas.lissnas.autocorrelation`).

    Args:
        space: The space to shrink, which may be open-ended.
        quality: A finite number for every architecture, higher is better; called once for each.
        samples: Architectures drawn per round, at least ``seeds``.
        seeds: Number of architectures whose surroundings are kept.
        radius: Moves from a seed in the first round.
        max_iterations: Largest number of rounds.
        max_size: Largest number of architectures to keep; of the farthest from the seeds, a random part is
            dropped.
        seed: Seed of all random numbers.
        on_iteration: Called after each round.

    Returns:
        The shrunk space and its history. The same arguments give the same space.

    Raises:
        UserError: A size is out of range, or a quality is not finite.
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
        """Mean quality; evaluates and caches new architectures."""
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
    """``samples`` distinct architectures, or all if there are fewer."""
    if space.size is not None and space.size <= samples:
        return list(space.all())
    found: dict[Architecture, None] = {}
    while len(found) < samples:
        found[space.sample(rng)] = None
    return list(found)


def _surroundings(
    space: SearchSpace, seeds: list[Architecture], radius: int, max_size: int, rng: random.Random
) -> list[Architecture]:
    """The seeds and everything within ``radius`` moves of one, by increasing distance."""
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
