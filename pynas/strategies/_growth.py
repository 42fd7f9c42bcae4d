"""A policy for spaces whose architectures grow layer by layer."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pynas.architecture import Architecture
from pynas.strategies._policies import Array, Decisions, Policy, _logit_gradient, _softmax

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace

BUCKETS = 4096
"""Number of parameters; hashing maps features to them, so neither depth nor choices need a bound."""

SAMPLES_FOR_ROOTS = 256
CACHED = 4096


@runtime_checkable
class Grows(Protocol):
    """A space with a method that lists the continuations of an architecture by one layer."""

    def grow(self, arch: Architecture) -> Iterator[Architecture]:
        """Every architecture that appends one layer to ``arch``."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    """The options after a prefix: longer prefixes and, as the last option, the prefix itself: the end."""

    options: tuple[Decisions, ...]
    features: NDArray[np.int64]  # [options, features of each]; BUCKETS means no feature


class GrowthPolicy(Policy):
    """Adds layer after layer by a softmax over what ``grow`` lists and over stopping; a logit sums features.

    The features of a layer are its decisions: each alone, with the depth, with its successor in the layer,
    and with the same decision of the previous layer. Stopping has the depth as its feature. The first layers
    are the shortest valid prefixes of some hundred samples of the space, the same ones for every seed.

    Args:
        space: A space with a method ``grow``.
        learning_rate: As in :class:`Policy`.
        entropy_weight: As in :class:`Policy`.
    """

    def __init__(self, space: SearchSpace, learning_rate: float, entropy_weight: float) -> None:
        assert isinstance(space, Grows)
        self._space = space
        self._grow = space.grow
        self._steps_by_beginning: dict[Decisions, _Step] = {}
        rng = random.Random(0)
        drawn = (space.sample(rng).decisions for _ in range(SAMPLES_FOR_ROOTS))
        self._roots = tuple(sorted({self.beginnings(decisions)[1] for decisions in drawn}))
        super().__init__(BUCKETS + 1, learning_rate, entropy_weight)

    def beginnings(self, decisions: Decisions) -> list[Decisions]:
        """The empty tuple and every valid prefix of ``decisions``, which itself is the last."""
        lengths = range(1, len(decisions) + 1)
        return [(), *(decisions[:n] for n in lengths if self._space.is_valid(decisions[:n]))]

    def propose(self, rng: np.random.Generator, start: Decisions, most: int) -> Decisions:
        """Add at least one layer to ``start`` (if ``grow`` lists any) and at most ``most``."""
        current, added = start, 0
        while added < most:
            step = self._step(current)
            count = len(step.options) - (added == 0)  # the last option is to stop
            if count == 0:
                break
            shares = np.cumsum(_softmax(self._logits(step)[:count]))
            pick = int((shares[:-1] < rng.random()).sum())
            following, current = current, step.options[pick]
            if current == following:
                break
            added += 1
        return current

    def gradient(self, decisions: Sequence[Decisions], advantages: Array) -> Array:
        """The gradient for whole architectures, grown from the empty one."""
        slope = np.zeros_like(self._weights)
        for whole, advantage in zip(decisions, advantages, strict=True):
            path = self.beginnings(whole)
            for before, after in zip(path, [*path[1:], whole], strict=True):
                step = self._step(before)
                if after not in step.options:  # a first layer that occurred in no sample
                    continue
                shares = _softmax(self._logits(step))[None, :]
                chosen = np.array([step.options.index(after)])
                towards = _logit_gradient(shares, chosen, np.array([advantage]), self.entropy_weight)[0]
                np.add.at(slope, step.features, towards[:, None])
        slope[BUCKETS] = 0
        return slope / len(decisions)

    def _logits(self, step: _Step) -> Array:
        logits: Array = self._weights[step.features].sum(axis=1)
        return logits

    def _step(self, beginning: Decisions) -> _Step:
        known = self._steps_by_beginning.get(beginning)
        if known is None:
            if len(self._steps_by_beginning) >= CACHED:
                self._steps_by_beginning.clear()
            known = self._steps_by_beginning[beginning] = self._listed(beginning)
        return known

    def _listed(self, beginning: Decisions) -> _Step:
        longer = self._roots
        path = self.beginnings(beginning)
        if beginning:
            longer = tuple(grown.decisions for grown in self._grow(Architecture(self._space.name, beginning)))
        last = path[-1][len(path[-2]) :] if beginning else ()
        depth = len(path) - 1
        rows = [_features(option[len(beginning) :], last, depth) for option in longer]
        options = longer
        if beginning:
            rows.append([_bucket("stop"), _bucket("stop", depth)])
            options = (*longer, beginning)
        features = np.full((len(rows), max(map(len, rows))), BUCKETS)
        for row, buckets in zip(features, rows, strict=True):
            row[: len(buckets)] = buckets
        return _Step(options, features)


def _features(layer: Decisions, last: Decisions, depth: int) -> list[int]:
    buckets = []
    for i, decision in enumerate(layer):
        buckets += [_bucket("alone", i, decision), _bucket("depth", i, decision, depth)]
        if i + 1 < len(layer):
            buckets.append(_bucket("beside", i, decision, layer[i + 1]))
        if i < len(last):
            buckets.append(_bucket("after", i, decision, last[i]))
    return buckets


def _bucket(*feature: object) -> int:
    return zlib.crc32(repr(feature).encode()) % BUCKETS
