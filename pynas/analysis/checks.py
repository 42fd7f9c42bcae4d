"""Checks of arguments, shared by the measures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pynas._errors import UserError
from pynas._plural import counted

Floats = NDArray[np.float64]


def finite(name: str, values: ArrayLike, dimensions: int = 1, count: int | None = None) -> Floats:
    """``values`` as float64 with ``dimensions`` dimensions, of which the last has size ``count``.

    Raises:
        UserError: The shape differs, or a value is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or 0 in array.shape:
        raise UserError(
            f"{name}: expected {counted(dimensions, 'dimension')} and at least one number, "
            f"got shape {list(array.shape)}"
        )
    if count is not None and array.shape[-1] != count:
        raise UserError(
            f"{name}: expected one number for each of {counted(count, 'architecture')}, got {array.shape[-1]}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{name}: expected finite numbers; leave out architectures without one")
    return array


def members(share: float, count: int, name: str = "share") -> int:
    """``ceil(share * count)``: the number of architectures in a share of ``count``, at least one.

    Raises:
        UserError: ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"{name}: expected a share in (0, 1], got {share}")
    return math.ceil(round(share * count, 9))  # 0.07 * 100 is 7.000000000000001
