"""Random numbers that depend only on a seed and the position in the training, so that resuming is exact."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive(*parts: int | str) -> int:
    """A 63-bit seed derived from numbers and names."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Batches:
    """Full batches of items in a new permutation for each epoch, with random access to batch ``step``.

    Args:
        positions: The items.
        batch_size: Size of a batch; an epoch drops the remainder.
        seed: Seed of the permutations.
    """

    def __init__(self, positions: Tensor, batch_size: int, seed: int) -> None:
        self.positions, self.batch_size, self.seed = positions, batch_size, seed
        self.per_epoch = len(positions) // batch_size
        self._epoch: tuple[int, int] | None = None
        self._order = positions

    def at(self, step: int, salt: int = 0) -> Tensor:
        """The positions of batch ``step``; another ``salt`` gives another order."""
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch != (epoch, salt):
            generator = torch.Generator().manual_seed(derive(self.seed, salt, epoch))
            self._order = self.positions[torch.randperm(len(self.positions), generator=generator)]
            self._epoch = (epoch, salt)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]
