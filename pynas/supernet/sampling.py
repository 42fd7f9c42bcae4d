"""Which architectures a step of training runs.

Sources: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
arXiv:1904.00420; X. Chu, B. Zhang, R. Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural
Architecture Search", ICCV 2021, arXiv:1907.01845.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from typing import ClassVar

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace


class Sampler(ABC):
    """Draws architectures; what it draws depends on its settings and on the random numbers alone.

    Attributes:
        space: Whose architectures.
    """

    name: ClassVar[str]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @abstractmethod
    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """The architectures of one step, whose gradients are added."""

    def describe(self) -> dict[str, str | int | float]:
        """Name and settings, by which a training that goes on knows that nothing has changed."""
        return {"sampler": self.name, "space": self.space.name}


class UniformSampler(Sampler):
    """One architecture, all alike probable: ``p(a) = 1 / size``."""

    name = "uniform"

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One."""
        return (self.space.sample(rng),)


class FairSampler(Sampler):
    r"""As many architectures as the largest number of choices K: every choice of every decision alike often.

    Of each decision the choices are permuted, and architecture k takes the k-th (strict fairness). A decision
    of fewer choices n than K takes permutation after permutation, so in one step its choices occur
    ``floor(K / n)`` or ``ceil(K / n)`` times. In a space with constraints the permutations are drawn until
    all architectures are valid.

    Args:
        space: With a fixed number of decisions.
        tries: Draws until giving up.
    """

    name = "fair"

    def __init__(self, space: SearchSpace, *, tries: int = 1000) -> None:
        super().__init__(space)
        if not space.num_choices:
            raise UserError(f"space: fair sampling needs a fixed number of decisions, {space.name} has none")
        self.tries = tries

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """K, in which every choice occurs."""
        count = max(self.space.num_choices)
        for _ in range(self.tries):
            columns = []
            for choices in self.space.num_choices:
                column: list[int] = []
                while len(column) < count:
                    column += rng.sample(range(choices), choices)
                columns.append(column[:count])
            rows = list(zip(*columns, strict=True))
            if all(map(self.space.is_valid, rows)):
                return tuple(Architecture(self.space.name, row) for row in rows)
        raise UserError(
            f"space: the constraints of {self.space.name} refused {self.tries} fair samples; "
            "use uniform sampling"
        )


class FlopsBinSampler(Sampler):
    """One architecture whose multiply-adds are in a bin that was drawn first: costs are met alike often.

    Uniform sampling concentrates where most architectures are; this is what the code of Single Path One-Shot
    trains ImageNet's supernet with (290 to 360 million in bins of 10 million). A bin is drawn uniformly, then
    architectures until one is inside; after ``tries`` the nearest that was seen is taken.

    Args:
        space: Which knows its multiply-adds.
        low: Where the first bin begins; None for the 5 % quantile of 200 architectures.
        high: Where the last bin ends; None for the 95 % quantile.
        width: Of a bin; None for a seventh of the range.
        num_classes: As of the networks.
        image_size: As of the images.
        in_channels: As of the images.
        tries: Architectures drawn for a bin.

    Raises:
        UserError: The range is empty.
    """

    name = "flops"

    def __init__(
        self,
        space: SearchSpace,
        *,
        low: float | None = None,
        high: float | None = None,
        width: float | None = None,
        num_classes: int = 10,
        image_size: int = 32,
        in_channels: int = 3,
        tries: int = 500,
    ) -> None:
        super().__init__(space)
        self._arguments = (num_classes, image_size, in_channels)
        if low is None or high is None:
            rng = random.Random(0)
            seen = sorted(self.macs(space.sample(rng)) for _ in range(200))
            low = seen[10] if low is None else low
            high = seen[190] if high is None else high
        if not 0 <= low < high:
            raise UserError(f"low, high: expected 0 <= low < high multiply-adds, got {low:g} and {high:g}")
        width = (high - low) / 7 if width is None else width
        if not 0 < width <= high - low:
            raise UserError(f"width: expected at most {high - low:g} multiply-adds, got {width:g}")
        if tries < 1:
            raise UserError(f"tries: expected a positive integer, got {tries}")
        self.low, self.high, self.width, self.tries = low, high, width, tries

    def macs(self, arch: Architecture) -> int:
        """Multiply-adds of ``arch`` at the sizes of this sampler."""
        return self.space.macs(arch, *self._arguments)

    @property
    def bins(self) -> int:
        """How many there are."""
        return math.ceil((self.high - self.low) / self.width - 1e-9)

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One."""
        begin = self.low + rng.randrange(self.bins) * self.width
        end = min(begin + self.width, self.high)
        best: tuple[float, Architecture] | None = None
        for _ in range(self.tries):
            arch = self.space.sample(rng)
            macs = self.macs(arch)
            distance = max(begin - macs, macs - end, 0.0)
            if best is None or distance < best[0]:
                best = (distance, arch)
            if distance == 0:
                break
        assert best is not None
        return (best[1],)

    def describe(self) -> dict[str, str | int | float]:
        """With the bins."""
        bins: dict[str, str | int | float] = {"low": self.low, "high": self.high, "width": self.width}
        return super().describe() | bins | {"tries": self.tries}
