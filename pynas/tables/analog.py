"""A measured CIFAR-10 accuracy of every NAS-Bench-201 cell, from the package analog-nasbench.

The package contains its table as a pickle of its own classes. This module reads the installed file with
stand-ins for these classes. It never imports the package, which needs a module that setuptools has removed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pynas._errors import UserError
from pynas._io.files import listed
from pynas._io.pickles import unpickle
from pynas._io.pickles.stand_ins import Record
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import NASBench201, SearchSpace
from pynas.spaces.nasbench201.space import AVG_POOL, CONV_1X1, CONV_3X3, EDGES, NONE, SKIP
from pynas.tables._base import Table
from pynas.tables._columns import Column
from pynas.tables._numbers import checked

DEFAULT_METRIC = "baseline_accuracy"  # floating point, without the simulated analog hardware

_DISTRIBUTION = "analog-nasbench"
_FILE = "analognasbench/data.anb"
_ALLOWED = {("analognasbench.data", name): Record for name in ("Architecture", "DriftMeasurement")}
_CODES = (SKIP, NONE, CONV_3X3, CONV_1X1, AVG_POOL)  # our operation for each code of the package
_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))  # order of edges in the package
_ORDER = tuple(_EDGES.index(edge) for edge in EDGES)


def read(rest: str, space: SearchSpace, metric: str | None) -> Table:
    """Read ``analog``: test accuracy in percent on CIFAR-10, after the package's own training.

    Raises:
        UserError: The package is absent (the message has the command to install it), its file is damaged or
            unexpected, the metric is unknown, or ``space`` is not NAS-Bench-201.
    """
    if rest:
        raise UserError(f"table analog: takes no argument, got {rest!r}")
    if not isinstance(space, NASBench201):
        raise UserError(f"table analog: holds architectures of nasbench201, not of {space.name}")
    return read_file(installed(), space, metric)


def installed() -> Path:
    """The package's file; UserError if the package is absent."""
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"table analog: needs the package {_DISTRIBUTION}; install it with: "
            "pip install 'pynas-torch[tables]'"
        ) from None
    return Path(str(distribution.locate_file(_FILE)))


def read_file(path: Path, space: NASBench201, metric: str | None = None) -> Table:
    """Read the package's file at ``path``: ``{(six operation codes): record of accuracies}``."""
    chosen = DEFAULT_METRIC if metric is None else metric
    if type(space) is NASBench201 and path.is_file():
        about = path.stat()
        values = dict(_kept(path, chosen, (about.st_ino, about.st_size, about.st_mtime_ns)))
    else:
        values = _values(path, space, chosen)
    return Table(_DISTRIBUTION, chosen, "cifar10", space, values)


@lru_cache(maxsize=4)
def _kept(path: Path, metric: str, version: tuple[int, ...]) -> dict[int, float]:
    """:func:`_values`, which takes seconds, and which more than one asks for."""
    return _values(path, NASBench201(), metric)


def _values(path: Path, space: NASBench201, metric: str) -> dict[int, float]:
    """One metric of all cells, by index."""
    values = {index: _accuracy(path, record, metric) for index, record in records(path, space).items()}
    checked(Column("cifar10", metric), np.array(list(values.values())), path)
    return values


def records(path: Path, space: NASBench201) -> dict[int, Record]:
    """The record of every cell, by its index in the space."""
    content = unpickle(path, _ALLOWED, what="the table of analog-nasbench")
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the table of analog-nasbench 0.1.3: a {type(content).__name__}")
    found: dict[int, Record] = {}
    for codes, record in content.items():
        if not _is_cell(codes) or not isinstance(record, Record):
            raise UserError(
                f"{path}: not the table of analog-nasbench 0.1.3: it lists no cell and its record"
            )
        decisions = tuple(_CODES[codes[position]] for position in _ORDER)
        found[space.index(Architecture(space.name, decisions))] = record
    if len(found) != space.size or len(content) != space.size:
        expected = counted(space.size or 0, "architecture")
        raise UserError(f"{path}: expected {expected}, got {len(content):,}")
    return found


def _is_cell(codes: Any) -> bool:
    return (
        isinstance(codes, tuple)
        and len(codes) == len(_EDGES)
        and all(type(code) is int and 0 <= code < len(_CODES) for code in codes)
    )


def _accuracy(path: Path, record: Record, metric: str) -> float:
    """The finite number called ``metric`` of a record."""
    value = record.fields.get(metric)
    if not isinstance(value, float):
        numbers = (name for name, field in record.fields.items() if isinstance(field, float))
        choices = listed(sorted(map(str, numbers)))
        raise UserError(f"table analog: {path.name} has no metric {metric!r} everywhere; it has: {choices}")
    if not math.isfinite(value):
        raise UserError(f"table analog: {path.name}: {metric} of an architecture is {value}")
    return value
