"""Which operations shared weights favour: rank errors of architectures with an operation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pynas.analysis.checks import Floats, finite
from pynas.analysis.stability import mid_ranks
from pynas.ranking.correlation import Bootstrap, Estimate, spearman


@dataclass(frozen=True, slots=True)
class OperationBias:
    """Rank errors ``e_i`` against the number of copies of an operation, with bootstrap intervals.

    Attributes:
        name: The operation.
        present: Number of architectures with the operation.
        error: Mean ``e_i`` of those; above zero they are ranked too high. NaN if there are none.
        contrast: ``error`` minus the mean of all others; NaN if all or none have the operation.
        slope: Change of ``e`` per copy: least squares of ``e_i`` on the number of copies; NaN if all have
            equally many.
    """

    name: str
    present: int
    error: Estimate
    contrast: Estimate
    slope: Estimate


def rank_errors(estimates: ArrayLike, truth: ArrayLike) -> Floats:
    """``e_i = (rank_i by estimate - rank_i by truth) / (N - 1)``, mid-ranks, in [-1, 1]; its mean is zero.

    Args:
        estimates: ``[N]``, or ``[R, N]`` for R runs, whose errors are averaged.
        truth: ``[N]``.
    """
    known = finite("truth", truth)
    array = np.asarray(estimates, dtype=np.float64)
    runs = finite("estimates", array[None] if array.ndim == 1 else array, 2, len(known))
    ranks = np.mean([mid_ranks(row) for row in runs], axis=0)
    errors: Floats = (ranks - mid_ranks(known)) / max(1, len(known) - 1)
    return errors


def operation_bias(
    errors: ArrayLike,
    copies: Mapping[str, ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[OperationBias, ...]:
    """The bias of each operation.

    Args:
        errors: ``[N]``, from :func:`rank_errors`.
        copies: ``[N]`` numbers of copies in each architecture, by name of the operation.
        confidence: Coverage of the percentile intervals.
        resamples: Number of bootstrap resamples of the architectures.
        seed: Seed of the resamples, which are the same for all operations.
    """
    known = finite("errors", errors)
    interval = Bootstrap(resamples, confidence, seed)
    found = []
    for name, values in copies.items():
        held = finite(f"copies[{name!r}]", values, count=len(known))
        found.append(
            OperationBias(
                name,
                int((held > 0).sum()),
                interval(_mean_present, held, known),
                interval(_contrast, held, known),
                interval(_slope, held, known),
            )
        )
    return tuple(found)


def cost_bias(
    errors: ArrayLike,
    cost: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Spearman's rho of rank errors and a cost; above zero, expensive architectures are favoured."""
    known = finite("errors", errors)
    values = finite("cost", cost, count=len(known))
    return Bootstrap(resamples, confidence, seed)(spearman, values, known)


def _mean_present(held: Floats, errors: Floats, weights: Floats) -> Floats:
    return _mean(errors, weights * (held > 0))


def _contrast(held: Floats, errors: Floats, weights: Floats) -> Floats:
    return _mean(errors, weights * (held > 0)) - _mean(errors, weights * (held <= 0))


def _slope(held: Floats, errors: Floats, weights: Floats) -> Floats:
    centred = held - _mean(held, weights)[:, None]
    variation = (weights * centred**2).sum(axis=1)
    return _ratio((weights * centred * errors).sum(axis=1), np.where(variation > 1e-12, variation, 0))


def _mean(values: Floats, weights: Floats) -> Floats:
    return _ratio(weights @ values, weights.sum(axis=1))


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> Floats:
    out = np.full(numerator.shape, math.nan)
    result: Floats = np.divide(numerator, denominator, out=out, where=denominator > 0)
    return result
