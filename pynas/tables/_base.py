"""The values that every reader of tables returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

LARGEST_ARRAY = 10**8  # largest space, in architectures, whose values can be listed


class Rows(Protocol):
    """The architecture of each row of a table."""

    def row(self, arch: Architecture) -> int | None:
        """The row of ``arch``, None if there is none."""

    def architecture(self, row: int) -> Architecture:
        """The architecture in ``row``."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Table:
    """One metric of the architectures of one space.

    Accuracies are percent, times seconds, latencies milliseconds, energies millijoules.

    Attributes:
        name: Source of the table.
        metric: Name of the metric in the source.
        dataset: Data set that the architectures were trained on.
        space: The search space.
        values: Values by index in the space, or by row of ``rows``; architectures without a value are absent.
        unit: Unit of the values.
        higher_is_better: Whether :meth:`best` is the largest value.
        rows: Maps architectures to rows, if they are not identified by their index.
    """

    name: str
    metric: str
    dataset: str
    space: SearchSpace
    values: Mapping[int, float]
    unit: str = "%"
    higher_is_better: bool = True
    rows: Rows | None = None

    def __repr__(self) -> str:
        unit = f" in {self.unit}" if self.unit else ""
        values = counted(len(self.values), "value")
        return f"Table({self.name!r}, {self.metric} of {self.dataset}{unit}, {values} of {self.space.name})"

    def accuracy(self, arch: Architecture) -> float | None:
        """The value of ``arch``; None if the table has none."""
        row = self.space.index(arch) if self.rows is None else self.rows.row(arch)
        return None if row is None else self.values.get(row)

    def accuracies(self) -> NDArray[np.float64]:
        """All values in the index order of the space, ``[space.size]``; NaN if the table has none.

        Raises:
            UserError: The space is too large to list, or its architectures have no index in this table.
        """
        size = self.space.size
        if size is None or size > LARGEST_ARRAY:
            raise UserError(f"{self.space.name} is too large to list: use accuracy(arch) instead")
        result = np.full(size, np.nan)
        if self.rows is None:
            result[list(self.values)] = list(self.values.values())
        else:
            for row, value in self.values.items():
                result[self.space.index(self.rows.architecture(row))] = value
        return result

    def architectures(self) -> Iterator[Architecture]:
        """The architectures that have a value, in the order of :attr:`values`."""
        of = self.space.from_index if self.rows is None else self.rows.architecture
        return (of(place) for place in self.values)

    def best(self) -> tuple[Architecture, float]:
        """The first architecture with the best value, and that value."""
        sign = 1 if self.higher_is_better else -1
        index = max(sorted(self.values), key=lambda index: sign * self.values[index])
        arch = self.space.from_index(index) if self.rows is None else self.rows.architecture(index)
        return arch, self.values[index]

    def __len__(self) -> int:
        return len(self.values)


Reader = Callable[[str, SearchSpace, str | None], Table]  # (rest of the spec, space, metric)
