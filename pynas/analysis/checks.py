"""Arguments that the measures share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pynas._errors import UserError

Floats = NDArray[np.float64]


def finite(name: str, values: ArrayLike, dimensions: int = 1, count: int | None = None) -> Floats:
    """``values`` as float64 of so many dimensions, the last one ``count`` long.

    Raises:
        UserError: They have another shape, or one of them is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or 0 in array.shape:
        raise UserError(
            f"{name}: expected numbers in {dimensions} dimension(s), got shape {list(array.shape)}"
        )
    if count is not None and array.shape[-1] != count:
        raise UserError(
            f"{name}: expected one number for each of {count} architectures, got {array.shape[-1]}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{name}: expected finite numbers; leave architectures without one out")
    return array


def members(share: float, count: int, name: str = "share") -> int:
    """``ceil(share * count)``: how many of ``count`` architectures a share is, at least one.

    Raises:
        UserError: ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"{name}: expected a share in (0, 1], got {share}")
    return math.ceil(round(share * count, 9))  # 0.07 * 100 is 7.000000000000001
