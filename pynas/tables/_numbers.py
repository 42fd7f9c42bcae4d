"""The valid numbers of a column: what means unknown, and what is impossible."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas.tables._columns import Column

NO_VALUE = -1  # an unknown cost; in HW-NAS-Bench, of a device that cannot run the network

_ROUNDING = 1e-4  # tolerance above 100 %, for accuracies that were averaged


def without_sentinels(column: Column, array: NDArray[Any]) -> NDArray[Any]:
    """The values, with NaN in place of costs of -1."""
    if not column.is_cost or not (absent := array == NO_VALUE).any():
        return array
    numbers = array.astype(np.float64)
    numbers[absent] = np.nan
    return numbers


def checked(column: Column, array: NDArray[Any], source: object) -> NDArray[np.float64]:
    """The values in double precision; NaN means unknown.

    Raises:
        UserError: A value is infinite, an accuracy is outside 0 to 100, a cost is negative, or a latency or
            an energy is zero.
    """
    numbers = np.asarray(without_sentinels(column, array), dtype=np.float64)
    bad, expected = np.isinf(numbers), "a finite number"
    if column.is_accuracy:
        bad, expected = bad | (numbers < 0) | (numbers > 100 + _ROUNDING), "percent, 0 to 100"
    elif column.is_measured:
        bad, expected = bad | (numbers <= 0), "a positive number, or -1"
    elif column.is_cost:
        bad, expected = bad | (numbers < 0), "a number of at least 0, or -1"
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])
        value = numbers[row][bad[row]].flat[0]
        raise UserError(
            f"{source}: {column.key} of row {row} is {value:g}; expected {expected}, NaN where there is none"
        )
    return numbers
