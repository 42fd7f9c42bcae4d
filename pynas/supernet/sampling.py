"""Samplers of the architectures of a training step.

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
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace, TemplateSpace, facts_of, whole


class Sampler(ABC):
    """Draws architectures; the draws depend only on its settings and the random numbers.

    Attributes:
        space: Space of the architectures.
    """

    name: ClassVar[str]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @abstractmethod
    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """The architectures of one step; their gradients are added."""

    def check(self, space: SearchSpace) -> None:
        """Raise UserError unless the architectures are of ``space``, all or some of it."""
        if space.name != self.space.name:
            raise UserError(
                f"sampler: expected one for {space.name}, the space of the model, "
                f"got one for {self.space.name}"
            )
        ours, theirs = whole(space), whole(self.space)
        if (
            isinstance(ours, TemplateSpace)
            and isinstance(theirs, TemplateSpace)
            and ours.digest != theirs.digest
        ):
            raise UserError(
                f"sampler: expected one for the template of the model, {ours.digest}, got one for "
                f"{theirs.digest}; give it the model's space, or a subset of that"
            )

    def describe(self) -> dict[str, str | int | float]:
        """Name and settings, by which a resumed training checks that they are unchanged."""
        return {"sampler": self.name, "space": self.space.name, **facts_of(self.space)}


class UniformSampler(Sampler):
    """One architecture, drawn uniformly: ``p(a) = 1 / size``."""

    name = "uniform"

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One architecture."""
        return (self.space.sample(rng),)


class FairSampler(Sampler):
    r"""K architectures with equally frequent choices of every decision; K is the largest number of choices.

    The choices of each decision are permuted, and architecture k takes the k-th (strict fairness). A decision
    with n < K choices uses several permutations, so its choices occur ``floor(K / n)`` or ``ceil(K / n)``
    times in a step. In a space with constraints, permutations are drawn until all architectures are valid.

    Args:
        space: A space with a fixed number of decisions.
        tries: Number of draws before giving up.
    """

    name = "fair"

    def __init__(self, space: SearchSpace, *, tries: int = 1000) -> None:
        super().__init__(space)
        if not space.num_choices:
            raise UserError(f"space: fair sampling needs a fixed number of decisions, {space.name} has none")
        self.tries = tries

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """K architectures in which every choice occurs."""
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
            f"space: the constraints of {self.space.name} refused {counted(self.tries, 'fair sample')}; "
            "use uniform sampling"
        )


class FlopsBinSampler(Sampler):
    """One architecture from a uniformly drawn bin of multiply-adds, so that all costs are equally frequent.

    Uniform sampling over architectures concentrates at the most frequent costs. The code of Single Path
    One-Shot trains the ImageNet supernet with this sampler, from 290 to 360 million in bins of 10 million. A
    bin is drawn uniformly, then architectures until one is inside; after ``tries`` the nearest one is taken.

    Args:
        space: A space with known multiply-adds.
        low: Start of the first bin; None for the 5 % quantile of 200 architectures.
        high: End of the last bin; None for the 95 % quantile.
        width: Width of a bin; None for a seventh of the range.
        num_classes: Number of classes of the networks.
        image_size: Size of the images.
        in_channels: Channels of the images.
        tries: Number of architectures drawn for a bin.

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
        """Multiply-adds of ``arch`` at this sampler's sizes."""
        return self.space.macs(arch, *self._arguments)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return math.ceil((self.high - self.low) / self.width - 1e-9)

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        """One architecture."""
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
        """Name and settings, including the bins."""
        bins: dict[str, str | int | float] = {"low": self.low, "high": self.high, "width": self.width}
        return super().describe() | bins | {"tries": self.tries}
