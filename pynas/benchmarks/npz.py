"""Tables in NumPy archives: architecture strings beside one array of accuracies per metric."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._npz import open_npz
from pynas.benchmarks._base import Table
from pynas.spaces import SearchSpace

DEFAULT_METRIC = "test200_cifar10"  # mean test accuracy after the full 200 epochs


def read(path_text: str, space: SearchSpace, metric: str | None) -> Table:
    """Read ``npz:FILE``: ``arch_str`` [N] and ``metric`` [N]; rows may come in any order, NaN means unknown.

    Raises:
        UserError: The file or the metric is absent, an array has the wrong shape or type, a string is no
            architecture of ``space``, an accuracy is infinite, or an architecture has two different
            accuracies.
    """
    if not path_text:
        raise UserError("table npz: say which file, as in npz:nb201_accuracy.npz")
    path = Path(os.path.expanduser(path_text))
    with open_npz(path) as archive:
        arrays: dict[str, NDArray[Any]] = {key: archive[key] for key in archive.files}
    strings = arrays.get("arch_str")
    if strings is None or strings.ndim != 1 or strings.dtype.kind not in "SU":
        raise UserError(
            f"{path}: expected an array arch_str of N architecture strings, got keys {sorted(arrays)}"
        )
    metrics = sorted(
        key for key, array in arrays.items() if array.dtype.kind in "fiu" and array.shape == strings.shape
    )
    chosen = DEFAULT_METRIC if metric is None else metric
    if chosen not in metrics:
        choices = ", ".join(metrics) or "none"
        raise UserError(f"{path}: no metric {chosen!r} with one number per architecture; it has: {choices}")
    values: dict[int, float] = {}
    for row, (text, value) in enumerate(zip(strings.tolist(), arrays[chosen].tolist(), strict=True)):
        try:
            index = space.index(space.parse(text.decode() if isinstance(text, bytes) else text))
        except ValueError as error:
            raise UserError(f"{path}: row {row} of arch_str: {error}") from error
        if value != value:
            continue
        if not np.isfinite(value):
            raise UserError(f"{path}: {chosen} of row {row} is {value}")
        if values.setdefault(index, float(value)) != value:
            raise UserError(f"{path}: row {row} gives {text!r} a second, different {chosen}")
    if not values:
        raise UserError(f"{path}: {chosen} holds no number")
    return Table(path.name, chosen, chosen.partition("_")[2] or "unknown", space, values)
