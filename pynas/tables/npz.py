"""Tables in NumPy archives: architecture strings, and one array of numbers per metric."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pynas._errors import UserError
from pynas._io.files import listed
from pynas._io.npz import open_npz
from pynas._plural import counted
from pynas.spaces import SearchSpace
from pynas.tables._base import LARGEST_ARRAY, Table
from pynas.tables._conventions import UNKNOWN, column_of
from pynas.tables._numbers import checked
from pynas.tables._rows import parse_rows

DEFAULT_METRIC = "test200_cifar10"  # mean test accuracy after the full 200 epochs


def read(path_text: str, space: SearchSpace, metric: str | None) -> Table:
    """Read ``npz:FILE``: ``arch_str`` [N] and ``metric`` [N]; rows may come in any order, NaN means unknown.

    Without ``arch_str`` an array holds one number for each architecture of the space, in its index order.

    Raises:
        UserError: The file or the metric is absent, an array has the wrong shape or type, a string is not an
            architecture of ``space``, a value is impossible (infinite, an accuracy of 105 %), or an
            architecture has two different values.
    """
    if not path_text:
        raise UserError("table npz: give a file, as in npz:nb201_accuracy.npz")
    path = Path(os.path.expanduser(path_text))
    with open_npz(path) as archive:
        arrays = archive.all()
    strings = arrays.get("arch_str")
    size = space.size or 0
    by_index = strings is None and any(array.shape == (size,) for array in arrays.values())
    if strings is None and by_index and size <= LARGEST_ARRAY:
        strings = np.arange(size)  # as tables are published that list a whole space in its order
    elif strings is None or strings.ndim != 1 or strings.dtype.kind not in "SU":
        raise UserError(
            f"{path}: expected an array arch_str of N architecture strings, or arrays of "
            f"{counted(size, 'number')} in the index order of {space.name}; got the keys "
            f"{listed(sorted(arrays)) or 'none'}"
        )
    metrics = sorted(
        key for key, array in arrays.items() if array.dtype.kind in "fiu" and array.shape == strings.shape
    )
    chosen = DEFAULT_METRIC if metric is None else metric
    if chosen not in metrics:
        choices = listed(metrics) or "none"
        raise UserError(f"{path}: no metric {chosen!r} with one number per architecture; it has: {choices}")
    column, array = column_of(chosen, arrays[chosen], path)
    numbers = checked(column, array, path).tolist()
    values: dict[int, float] = {}
    indices = strings.tolist() if by_index else parse_rows(space, strings, path)
    for row, (index, value) in enumerate(zip(indices, numbers, strict=True)):
        if value == value and values.setdefault(index, value) != value:
            text = space.format(space.from_index(index))
            raise UserError(f"{path}: row {row} gives {text!r} a second, different {chosen}")
    if not values:
        raise UserError(f"{path}: {chosen} holds no number")
    # A name without a known convention may still contain its data set.
    dataset = column.dataset if column.dataset != UNKNOWN else chosen.partition("_")[2] or UNKNOWN
    return Table(path.name, chosen, dataset, space, values, column.unit, column.higher_is_better)
