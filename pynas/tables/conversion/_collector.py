"""Collects the numbers of a table while it is read: one array per column and run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import shortened
from pynas._plural import counted
from pynas.tables._columns import Column, check_names

Key = tuple[str, str, int | None]  # dataset, metric, epochs
Number = tuple[Key, int | None, float]  # column, seed (None for a single value), value

_MOST_ARRAYS = 2048  # NATS-Bench has about 500
_MOST_EPOCHS = 10_000


class Collector:
    """Values of ``rows`` architectures; takes 8 bytes per row, column and run."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._arrays: dict[tuple[Key, int | None], NDArray[np.float64]] = {}

    def put(self, row: int, numbers: Iterable[Number]) -> None:
        """Set the values of ``row``; ValueError for an impossible column or value."""
        for key, seed, value in numbers:
            array = self._arrays.get((key, seed))
            if array is None:
                if len(self._arrays) == _MOST_ARRAYS:
                    raise ValueError(f"more than {_MOST_ARRAYS} different numbers of an architecture")
                check_names(*key[:2])
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


class Once:
    """Refuses repeated objects: a pickle of a few bytes can refer to one object a million times."""

    def __init__(self) -> None:
        self._seen: dict[int, object] = {}

    def __call__(self, thing: Any) -> Any:
        """Return ``thing``; ValueError the second time."""
        if id(thing) in self._seen:
            raise ValueError("the same results in two places")
        self._seen[id(thing)] = thing
        return thing


@contextmanager
def laid_out_as(path: Path, title: str) -> Iterator[None]:
    """Convert any error into a UserError: in a file of another layout, any value can have any type."""
    try:
        yield
    except Exception as error:
        what = shortened(str(error) or type(error).__name__)
        raise UserError(f"{path}: not laid out as {title}: {what}") from error


def epochs_of(value: Any) -> int:
    """Return ``value``; ValueError if it cannot be the length of a training."""
    if type(value) is not int or not 1 <= value <= _MOST_EPOCHS:
        shown = shortened(repr(value)) if isinstance(value, (int, float, str)) else type(value).__name__
        raise ValueError(f"{shown} epochs")
    return value


def numbers_in(values: Any) -> list[float]:
    """The numbers in a list, NaN for None; ValueError if it holds anything else."""
    if not isinstance(values, (list, tuple)) or not set(map(type, values)) <= {int, float, type(None)}:
        raise ValueError("a list of other things than numbers")
    return [np.nan if value is None else float(value) for value in values]


def check_archs(texts: list[Any], largest: int) -> None:
    """Raise ValueError unless ``texts`` are distinct architecture strings, at most ``largest``."""
    if not all(isinstance(text, str) and len(text) <= 1000 for text in texts):
        raise ValueError("expected a list of architecture strings")
    if len(texts) > largest or len(set(texts)) < len(texts):
        raise ValueError(
            f"{counted(len(texts), 'architecture')}, {len(set(texts)):,} of them distinct; "
            f"expected at most {largest:,}"
        )
