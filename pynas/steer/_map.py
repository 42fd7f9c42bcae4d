"""A map of architectures: a projection fixed once, so that points never move."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

MOST_POINTS = 20_000


class CandidateMap:
    """Architectures in two dimensions: the first two principal components of their encodings.

    ``y = W (e(a) - mean)`` with the encoding e of the space; mean and W are those of a reference sample,
    drawn once from the seed (all architectures of a space that is not larger). Every architecture that is
    asked for later is projected in the same way and appended.

    Args:
        space: The whole space.
        points: Size of the reference sample, at most 20,000.
        seed: Seed of the sample.

    Attributes:
        architectures: The points' architectures; the position of a point is its number.
        explained: Share of the reference sample's variance that each axis explains.
    """

    def __init__(self, space: SearchSpace, *, points: int = 2000, seed: int = 0) -> None:
        if not 2 <= points <= MOST_POINTS:
            raise UserError(f"points: expected 2 to {MOST_POINTS:,}, got {points}")
        self._space = space
        self.architectures = _reference(space, points, seed)
        codes = np.array([space.encode(arch) for arch in self.architectures], dtype=np.float64)
        self._mean = codes.mean(axis=0)
        self._axes, self.explained = _principal(codes - self._mean)
        self._places = [self._round(row) for row in (codes - self._mean) @ self._axes.T]
        self._numbers = {arch: i for i, arch in enumerate(self.architectures)}

    def __len__(self) -> int:
        return len(self.architectures)

    @property
    def places(self) -> Sequence[tuple[float, float]]:
        """The points' places."""
        return self._places

    def locate(self, arch: Architecture) -> int:
        """Number of the point of ``arch``, which is appended if it is not there."""
        if arch not in self._numbers:
            code = np.asarray(self._space.encode(arch), dtype=np.float64) - self._mean
            self._numbers[arch] = len(self.architectures)
            self.architectures.append(arch)
            self._places.append(self._round(self._axes @ code))
        return self._numbers[arch]

    @staticmethod
    def _round(row: np.ndarray) -> tuple[float, float]:
        return round(float(row[0]), 5), round(float(row[1]), 5)


def _reference(space: SearchSpace, points: int, seed: int) -> list[Architecture]:
    if space.size is not None and space.size <= points:
        return list(space.all())
    rng = random.Random(f"{seed}/map")
    return list(dict.fromkeys(_draws(space, rng, points)))


def _draws(space: SearchSpace, rng: random.Random, count: int) -> Iterator[Architecture]:
    return (space.sample(rng) for _ in range(count))


def _principal(centred: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Two axes, and their shares of the variance; zeros where there are fewer."""
    from sklearn.decomposition import PCA

    axes, shares = np.zeros((2, centred.shape[1])), [0.0, 0.0]
    count = min(2, *centred.shape)
    if centred.any():
        found = PCA(count, svd_solver="full").fit(centred)
        axes[:count] = found.components_
        shares[:count] = map(float, found.explained_variance_ratio_)
    return axes, (shares[0], shares[1])
