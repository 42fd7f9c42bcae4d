"""NumPy archives from other sources: the meaning of their keys.

- Rows: ``arch_str``, architecture strings; or ``hash``, ``adjacency`` and ``ops`` of NAS-Bench-101; or none,
  if every array has one number per architecture in the index order of the space.
- ``DATASET/METRIC`` and ``DATASET/METRIC@EPOCHS``: as in a compact file.
- ``test200_cifar10``, ``val12_cifar10``, ``train200_cifar10``: accuracies in percent after 200 or 12 epochs;
  with ``_per_seed`` one column per run.
- ``val_acc_108ep``, ``test_acc_108ep``: accuracies on CIFAR-10 as fractions.
- ``params_m_cifar10``, ``macs_m_cifar10``: millions of parameters and multiply-adds.
- ``trainable_parameters``, ``training_time_s``: for CIFAR-10.
- Any other array with one number per row: a metric of that name, on the data set ``unknown``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import listed
from pynas.spaces import SearchSpace
from pynas.tables._base import LARGEST_ARRAY
from pynas.tables._columns import Column, parse_key
from pynas.tables._compact import HASH_NAMES, Content
from pynas.tables._numbers import NO_VALUE

_NAMES = frozenset({"arch_str", *HASH_NAMES, "unique_id", "edges"})
_SPLITS = {"test": "test", "val": "valid", "valid": "valid", "train": "train"}
_TRAINED = re.compile(r"(test|val|valid|train)([0-9]{1,6})_(\w+?)(_per_seed)?")
_EPOCHS = re.compile(r"(test|val|valid|train)_acc_([0-9]{1,6})ep")
_MILLIONS = re.compile(r"(params|macs|flops)_m_(\w+)")
_FRACTION = 100
UNKNOWN = "unknown"  # data set of a metric whose name has none
_OF_NASBENCH101 = {"trainable_parameters": "params", "training_time_s": "train_time"}


def read(arrays: Mapping[str, NDArray[Any]], path: Path, space: SearchSpace) -> Content:
    """Interpret an archive by the names of its arrays; ``space`` is that of its architectures.

    Raises:
        UserError: No array names the rows, or none has a number per row.
    """
    family = "npz"
    if (naming := next((key for key in ("hash", "arch_str") if key in arrays), None)) is not None:
        if arrays[naming].ndim != 1:
            raise UserError(
                f"{path}: {naming} is of shape {list(arrays[naming].shape)}, expected one for each of N rows"
            )
        family = "nasbench101" if naming == "hash" else "npz"
        keys = HASH_NAMES if naming == "hash" else (naming,)
        names = {key: arrays[key] for key in keys if key in arrays}
        rows = len(arrays[naming])
    else:
        if any(key.endswith(("_latency", "_energy")) for key in arrays):
            family = "hw_nas"
        rows = space.size or 0
        if rows > LARGEST_ARRAY or not any(array.shape[:1] == (rows,) for array in arrays.values()):
            raise UserError(
                f"{path}: expected an array arch_str (or hash, adjacency, ops), or {rows} numbers per array "
                f"in the index order of {space.name}; got the keys {listed(sorted(arrays))}"
            )
        names = {"index": np.arange(rows)}
    columns: dict[Column, NDArray[Any]] = {}
    for key, array in arrays.items():
        is_numbers = array.dtype.kind in "fiu" and array.shape[:1] == (rows,) and array.ndim <= 2
        if is_numbers and key not in _NAMES and key != "index":
            column, values = column_of(key, array, path)
            if array.ndim == 1 or column.seeds:
                columns[column] = values
    if not columns:
        raise UserError(
            f"{path}: no array with one number per architecture; got the keys {listed(sorted(arrays))}"
        )
    return Content(family, path.name, names, columns)


def column_of(key: str, array: NDArray[Any], path: Path) -> tuple[Column, NDArray[Any]]:
    """The column that ``key`` means, and the array in the units of a table.

    Raises:
        UserError: The values should be fractions and are not.
    """
    column, scale = _column(key, array)
    if scale == 1:
        return column, array
    if scale == _FRACTION and (highest := np.nanmax(array, initial=0)) > 1:
        raise UserError(f"{path}: {key} has a value of {highest:g}; expected fractions, 0 to 1")
    numbers = array.astype(np.float64)
    return column, np.where(numbers == NO_VALUE, numbers, numbers * scale)


def _column(key: str, array: NDArray[Any]) -> tuple[Column, float]:
    """The column that ``key`` means, and the factor to the units of a table."""
    seeds = tuple(range(array.shape[1])) if array.ndim == 2 else ()
    if (column := parse_key(key, seeds)) is not None:
        return column, 1
    if match := _TRAINED.fullmatch(key):
        split, epochs, dataset, per_seed = match.groups()
        metric = f"{_SPLITS[split]}_accuracy" + (per_seed or "")
        return Column(dataset, metric, int(epochs), seeds), 1
    if match := _EPOCHS.fullmatch(key):
        return Column("cifar10", f"{_SPLITS[match[1]]}_accuracy", int(match[2])), _FRACTION
    if match := _MILLIONS.fullmatch(key):
        return Column(match[2], "params" if match[1] == "params" else "flops"), 1e6
    if key in _OF_NASBENCH101:
        return Column("cifar10", _OF_NASBENCH101[key]), 1
    return Column(UNKNOWN, key, None, ()), 1
