"""The one compact file that every published table is converted to.

A NumPy archive: ``pynas_table``, a JSON text (format, family, source, seeds by column); what names the
rows (``arch_str``; for NAS-Bench-101 ``hash``, ``num_vertices``, ``adjacency``, ``ops``, ``op_names``); one
array per column, named ``DATASET/METRIC@EPOCHS``, ``[N]`` or ``[N, runs]``, NaN where there is no value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._atomic import replacing
from pynas._errors import UserError
from pynas.benchmarks._columns import Column, parse_key
from pynas.benchmarks._families import FAMILIES

HEADER = "pynas_table"
_FORMAT = 1


@dataclass(frozen=True)
class Content:
    """A table as a file holds it.

    Attributes:
        family: Which benchmark.
        source: Name of the file that it was made from.
        names: The arrays that name the rows.
        columns: The values.
    """

    family: str
    source: str
    names: Mapping[str, NDArray[Any]]
    columns: Mapping[Column, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.names.values())))


def write(path: Path, content: Content) -> None:
    """Write ``path``, or nothing: it appears when it is complete, and an old one stays until then.

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
        UserError: The header is none, of a later format, or does not fit the arrays.
    """
    try:
        header = json.loads(str(arrays[HEADER]))
        version, family, source = header["format"], header["family"], header["source"]
        seeds = {key: tuple(map(int, values)) for key, values in header["seeds"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its header {HEADER} is damaged: {error}") from error
    if version != _FORMAT or family not in FAMILIES:
        raise UserError(
            f"{path}: a table of format {version!r}, family {family!r}; a newer pynas may read it"
        )
    columns: dict[Column, NDArray[Any]] = {}
    names: dict[str, NDArray[Any]] = {}
    for key, array in arrays.items():
        column = parse_key(key, seeds.get(key, ()))
        if column is not None:
            columns[column] = array
        elif key != HEADER:
            names[key] = array
    if not names:
        raise UserError(f"{path}: nothing names its rows")
    content = Content(family, source, names, columns)
    for column, array in columns.items():
        shape = (len(content), len(column.seeds)) if column.seeds else (len(content),)
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: {column.key} is {array.dtype} of shape {list(array.shape)}, expected numbers of "
                f"shape {list(shape)}"
            )
    return content
