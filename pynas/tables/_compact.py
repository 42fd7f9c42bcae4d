"""The compact file format of all converted tables.

It is a NumPy archive of ``pynas_table``, a JSON text (format, family, source, seeds by column); the names of
the rows (``arch_str``; for NAS-Bench-101 ``hash``, ``num_vertices``, ``adjacency``, ``ops``, ``op_names``);
and one array per column, named ``DATASET/METRIC@EPOCHS``, ``[N]`` or ``[N, runs]``, in which NaN means
unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.atomic import replacing
from pynas._io.files import shortened
from pynas.tables._columns import Column, parse_key
from pynas.tables._families import FAMILIES

HEADER = "pynas_table"
HASH_NAMES = ("hash", "num_vertices", "adjacency", "ops", "op_names")
_FORMAT = 1
_LARGEST_HEADER = 1 << 22


@dataclass(frozen=True)
class Content:
    """The content of a table's file.

    Attributes:
        family: The benchmark.
        source: Name of the file that it was made from.
        names: Arrays with the names of the rows.
        columns: Values by column.
    """

    family: str
    source: str
    names: Mapping[str, NDArray[Any]]
    columns: Mapping[Column, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.names.values())))


def write(path: Path, content: Content) -> None:
    """Write ``path`` atomically: the old file, if any, stays until the new one is complete.

    Raises:
        UserError: The file cannot be written.
    """
    header = {
        "format": _FORMAT,
        "family": content.family,
        "source": content.source,
        "seeds": {column.key: list(column.seeds) for column in content.columns if column.seeds},
    }
    arrays = {column.key: array for column, array in content.columns.items()}
    try:
        with replacing(path) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                **{HEADER: np.array(json.dumps(header)), **content.names, **arrays},
            )
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from error


def read(arrays: Mapping[str, NDArray[Any]], path: Path) -> Content:
    """The content of an archive that :func:`write` wrote.

    Raises:
        UserError: The header is malformed, of a later format, or does not fit the arrays.
    """
    version, family, source, seeds = _header(arrays[HEADER], path)
    if version != _FORMAT or family not in FAMILIES:
        raise UserError(
            f"{path}: a table of format {shortened(version)}, family {shortened(family)}; a newer pynas may "
            "read it"
        )
    columns: dict[Column, NDArray[Any]] = {}
    for key, array in arrays.items():
        column = parse_key(key, seeds.get(key, ()))
        if column is not None:
            columns[column] = array
    naming = next((key for key in ("hash", "arch_str") if key in arrays), None)
    if naming is None or arrays[naming].ndim != 1:
        raise UserError(f"{path}: nothing names its rows")
    names = {naming: arrays[naming]}
    names |= {key: arrays[key] for key in HASH_NAMES if naming == "hash" and key in arrays}
    content = Content(family, source, names, columns)
    for column, array in columns.items():
        shape = (len(content), len(column.seeds)) if column.seeds else (len(content),)
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: {column.key} is {array.dtype} of shape {list(array.shape)}, expected numbers of "
                f"shape {list(shape)}"
            )
    return content


def _header(array: NDArray[Any], path: Path) -> tuple[Any, str, str, dict[str, tuple[int, ...]]]:
    """Version, family, source, and the seeds of columns."""
    try:
        if array.ndim or array.dtype.kind != "U" or array.dtype.itemsize > _LARGEST_HEADER:
            raise ValueError(f"{array.dtype} of shape {list(array.shape)}")
        header = json.loads(str(array))
        seeds = {key: tuple(values) for key, values in header["seeds"].items()}
        if not all(type(seed) is int for runs in seeds.values() for seed in runs):
            raise ValueError("a seed that is not an integer")
        if any(len(set(runs)) < len(runs) for runs in seeds.values()):
            raise ValueError("a seed twice")
        return header["format"], str(header["family"]), shortened(header["source"]), seeds
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its header {HEADER} is damaged: {shortened(error)}") from error
