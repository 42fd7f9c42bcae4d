"""Where the numbers of a table are put while it is read: one array per column and run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas.benchmarks._columns import Column

Key = tuple[str, str, int | None]  # dataset, metric, epochs
Number = tuple[Key, int | None, float]  # column, seed (None for a single value), value


class Collector:
    """Values of ``rows`` architectures; memory is 8 bytes per row, column and run."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._arrays: dict[tuple[Key, int | None], NDArray[np.float64]] = {}

    def put(self, row: int, numbers: Iterable[Number]) -> None:
        """Set what is known about ``row``."""
        for key, seed, value in numbers:
            array = self._arrays.get((key, seed))
            if array is None:
                array = self._arrays[key, seed] = np.full(self._rows, np.nan)
            array[row] = value

    def columns(self) -> dict[Column, NDArray[Any]]:
        """All columns, runs side by side in the order of their seeds."""
        seeds: dict[Key, list[int]] = {}
        for key, seed in sorted(
            self._arrays, key=lambda place: (place[0][:2], place[0][2] or 0, place[1] or 0)
        ):
            runs = seeds.setdefault(key, [])
            if seed is not None:
                runs.append(seed)
        columns: dict[Column, NDArray[Any]] = {}
        for key, runs in seeds.items():
            if runs:
                columns[Column(*key, tuple(runs))] = np.stack(
                    [self._arrays.pop((key, seed)) for seed in runs], axis=1
                )
            else:
                columns[Column(*key)] = self._arrays.pop((key, None))
        return columns
