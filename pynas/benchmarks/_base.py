"""The value that every reader of tables returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

_LARGEST_ARRAY = 10**8


@dataclass(frozen=True, eq=False)
class Table:
    """Accuracies of the architectures of one space, in the unit of their source (percent for NAS-Bench-201).

    Attributes:
        name: Where it comes from.
        metric: Which of the source's metrics.
        dataset: What the architectures were trained on.
        space: The search space.
        values: Accuracy by index of the space; an architecture without a value is absent.
    """

    name: str
    metric: str
    dataset: str
    space: SearchSpace
    values: Mapping[int, float]

    def accuracy(self, arch: Architecture) -> float | None:
        """The accuracy of ``arch``, None where the table has none."""
        return self.values.get(self.space.index(arch))

    def accuracies(self) -> NDArray[np.float64]:
        """All accuracies in the index order of the space, ``[space.size]``, NaN where the table has none."""
        size = self.space.size
        if size is None or size > _LARGEST_ARRAY:
            raise UserError(f"{self.space.name} is too large to list: ask for accuracy(arch) instead")
        result = np.full(size, np.nan)
        result[list(self.values)] = list(self.values.values())
        return result

    def best(self) -> tuple[Architecture, float]:
        """The most accurate architecture, the first of equals, and its accuracy."""
        index = max(sorted(self.values), key=self.values.__getitem__)
        return self.space.from_index(index), self.values[index]

    def __len__(self) -> int:
        return len(self.values)


Reader = Callable[[str, SearchSpace, str | None], Table]  # (rest of the spec, space, metric)
