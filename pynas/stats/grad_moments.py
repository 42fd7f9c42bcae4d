"""Sums over samples of functions of the per-sample gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pynas._errors import UserError
from pynas._plural import counted
from pynas.ops import Moments
from pynas.stats._base import Statistic
from pynas.stats._products import GradientProduct

NAMES = ("sum", "abs", "square", "sign", "centered")


@dataclass(frozen=True)
class GradMoments(Statistic[Moments]):
    """Sums of g, |g|, g^2, sign(g) and (g - mean g)^2 over the gradients g of sample groups.

    Attributes:
        moments: Which of ``"sum"``, ``"abs"``, ``"square"``, ``"sign"``, ``"centered"``. A variance is
            ``centered / count``: it is taken about the mean, never as E[g^2] - E[g]^2.

    Values: :class:`pynas.ops.Moments` by parameter name, tensors in the parameter's shape, float32
        (float64 for float64 models).
    """

    moments: tuple[str, ...] = ("sum", "abs", "square", "sign")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.moments) - set(NAMES))
        if unknown or not self.moments:
            raise UserError(f"GradMoments: moments must be some of {', '.join(NAMES)}; got {self.moments!r}")
        object.__setattr__(self, "moments", tuple(n for n in NAMES if n in self.moments))

    def check(self, batch: int, group_size: int, passes: int) -> None:
        """A variance needs two groups."""
        super().check(batch, group_size, passes)
        if "centered" in self.moments and batch // group_size < 2:
            raise UserError(
                f"inputs: a variance over sample groups needs two groups or more, got {batch // group_size} "
                f"({counted(batch, 'sample')}, group_size={group_size}); pass more samples or a smaller "
                "group_size"
            )

    def merge(self, other: Self) -> Self:
        """Both sets of moments, of both sets of parameters."""
        moments = tuple(n for n in NAMES if n in self.moments or n in other.moments)
        parameters = self.parameters if self.parameters == other.parameters else "all"
        return type(self)(parameters=parameters, moments=moments)

    def observe(
        self,
        product: GradientProduct,
        weight: str | None,
        bias: str | None,
        group_size: int,
        results: dict[str, Moments],
    ) -> None:
        """Take the sums of each parameter."""
        if weight is None:
            if bias is not None:
                results[bias] = product.bias_moments(self.moments, group_size)
            return
        found = product.moments(self.moments, group_size, bias=bias is not None)
        results[weight] = found.weight
        if bias is not None and found.bias is not None:
            results[bias] = found.bias
