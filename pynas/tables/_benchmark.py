"""A tabular benchmark: many metrics of the architectures of one space, behind one interface."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import listed
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.tables._base import Rows, Table
from pynas.tables._columns import Column
from pynas.tables._families import FAMILIES, Family
from pynas.tables._numbers import checked
from pynas.tables._rows import IndexRows


class Benchmark:
    """Accuracies and costs of trained networks.

        benchmark = pynas.tables.open("nats-tss.npz")
        benchmark.query(arch, "test_accuracy", dataset="cifar100", epochs=200)

    A metric has the name of the official file (``x-test_accuracy``) or an alias (``test_accuracy``), which
    has the meaning of the official API on each data set; :meth:`resolve` tells which.

    Args:
        family: The benchmark, a key of ``FAMILIES``.
        space: Space of the architectures.
        rows: The architecture of each row.
        columns: Values of each column, ``[N]`` or ``[N, runs]``; NaN means unknown.
        source: Source of the values, for messages and tables.
    """

    def __init__(
        self,
        family: str,
        space: SearchSpace,
        rows: Rows,
        columns: Mapping[Column, NDArray[Any]],
        source: str,
    ) -> None:
        self.family: Family = FAMILIES[family]
        self.space, self.rows, self.source = space, rows, source
        self._columns = dict(columns)
        self._means: dict[Column, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Benchmark({self.family.name}, {self.source}: {len(self)} of {self.space.name})"

    # ---- columns -----------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns."""
        return tuple(self._columns)

    @property
    def datasets(self) -> tuple[str, ...]:
        """All datasets, or tasks."""
        return tuple(dict.fromkeys(c.dataset for c in self._columns))

    def metrics(self, dataset: str | None = None) -> tuple[str, ...]:
        """Names of all metrics, or of those of one dataset."""
        return tuple(dict.fromkeys(c.metric for c in self._columns if dataset in (None, c.dataset)))

    def epochs(self, metric: str, dataset: str | None = None) -> tuple[int, ...]:
        """The training lengths with this metric, shortest first."""
        chosen, name = self.family.resolve(dataset or self._default_dataset(), metric)
        lengths = {c.epochs for c in self._columns if (c.dataset, c.metric) == (chosen, name)}
        return tuple(sorted(length for length in lengths if length is not None))

    def resolve(
        self, metric: str | None = None, dataset: str | None = None, epochs: int | None = None
    ) -> Column:
        """The column of a query.

        Args:
            metric: Name or alias; ``NAME@EPOCHS`` also gives the epochs. Default: the usual target.
            dataset: Data set; by default CIFAR-10, for TransNAS-Bench-101 the task of the space.
            epochs: Length of the training; by default the longest.

        Raises:
            UserError: There is no such column; the message lists the choices.
        """
        if metric is not None and "@" in metric:
            metric, _, text = metric.partition("@")
            if not re.fullmatch("[0-9]{1,6}", text):
                raise UserError(
                    f"metric: expected NAME@EPOCHS such as test_accuracy@12, got '{metric}@{text}'"
                )
            if epochs not in (None, int(text)):
                raise UserError(f"epochs: the metric says {text}, the argument {epochs}")
            epochs = int(text)
        wanted = self._default_dataset() if dataset is None else dataset
        names = (metric,) if metric is not None else self.family.default_metrics
        for name in names:
            resolved = self.family.resolve(wanted, name)
            lengths = [c for c in self._columns if (c.dataset, c.metric) == resolved]
            fitting = [c for c in lengths if epochs is None or c.epochs in (epochs, None)]
            if fitting:
                return max(fitting, key=lambda c: c.epochs or 0)
            if lengths:
                known = listed(c.epochs for c in lengths)
                raise UserError(f"{self.source}: {lengths[0].metric}: expected epochs {known}, got {epochs}")
        raise UserError(f"{self.source}: {self._unknown(names[0] if metric else None, dataset)}")

    def _default_dataset(self) -> str:
        names = self.datasets
        preferred = (getattr(self.space, "task", None), *self.family.default_datasets)
        return next((name for name in preferred if name in names), (*names, "")[0])

    def _unknown(self, metric: str | None, dataset: str | None) -> str:
        datasets = sorted({*self.datasets, *self.family.dataset_aliases})
        if dataset is not None and self.family.dataset(dataset) not in self.datasets:
            return f"no dataset {dataset!r}{_hint(dataset, datasets)}; it has: {listed(self.datasets)}"
        metrics = sorted(self.metrics(dataset or None))
        choices = f"it has: {listed(metrics) or 'none'}"
        if metric is None:
            return f"give a metric (--metric, or #METRIC after the file); {choices}"
        where = "" if dataset is None else f" on {dataset}"
        return f"no metric {metric!r}{where}{_hint(metric, metrics)}; {choices}"

    # ---- values ------------------------------------------------------------------------------------

    def values(self, column: Column, seed: int | None = None) -> NDArray[np.float64]:
        """The column by row, ``[N]``: the values of one run, or the mean over known runs; NaN means unknown.

        Raises:
            UserError: No run of the column has this seed, or a value is impossible.
        """
        if seed is not None:
            if seed not in column.seeds:
                known = listed(column.seeds) or "none (a single value)"
                raise UserError(f"seed: {column.key} has the runs {known}, got {seed}")
            return self._numbers(column)[:, column.seeds.index(seed)]
        if column not in self._means:
            numbers = self._numbers(column)
            self._means[column] = numbers if numbers.ndim == 1 else _mean_of_known(numbers)
        return self._means[column]

    def _numbers(self, column: Column) -> NDArray[np.float64]:
        return checked(column, self._columns[column], self.source)

    def query(
        self,
        arch: Architecture,
        metric: str | None = None,
        *,
        dataset: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> float | None:
        """One number of one architecture; None if the benchmark has none.

        Args:
            arch: An architecture of the space.
            metric: As in :meth:`resolve`.
            dataset: As in :meth:`resolve`.
            epochs: As in :meth:`resolve`.
            seed: Seed of one run; by default the mean over known runs.
        """
        column = self.resolve(metric, dataset, epochs)
        row = self.rows.row(arch)
        if row is None:
            return None
        value = float(self.values(column, seed)[row])
        return value if math.isfinite(value) else None

    def cost(
        self,
        arch: Architecture,
        *,
        dataset: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> float | None:
        """Seconds that a search would spend on ``arch``: training and one validation pass.

        This is the clock of a simulated search: query a validation accuracy, add this cost. On CIFAR-10,
        NAS-Bench-201 and NATS-Bench use the training on the half that leaves a validation set, like their
        API. If the benchmark has no time of the validation pass, only the training counts.
        """
        family = self.family
        chosen, _ = family.resolve(dataset or self._default_dataset(), family.validation)
        train = self.query(arch, "train_time", dataset=chosen, epochs=epochs, seed=seed)
        if train is None or family.validation_time is None:
            return train
        name = family.validation_time
        if not any((c.dataset, c.metric) == (chosen, name) for c in self._columns):
            return train
        return train + (self.query(arch, name, dataset=chosen, epochs=epochs, seed=seed) or 0.0)

    def missing(
        self, metric: str | None = None, *, dataset: str | None = None, epochs: int | None = None
    ) -> list[Architecture]:
        """The architectures of the rows for which no run has the metric."""
        values = self.values(self.resolve(metric, dataset, epochs))
        return [self.rows.architecture(int(row)) for row in np.flatnonzero(~np.isfinite(values))]

    def table(
        self,
        metric: str | None = None,
        *,
        dataset: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> Table:
        """One metric as a :class:`Table`; arguments as in :meth:`query`; unknown values are absent.

        Raises:
            UserError: There is no such metric, or it has no values.
        """
        column = self.resolve(metric, dataset, epochs)
        values = self.values(column, seed)
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            raise UserError(f"{self.source}: {column.key} holds no number")
        numbers = values[known].tolist()
        by_index = isinstance(self.rows, IndexRows)
        places = [self.rows.index(row) for row in known.tolist()] if by_index else known.tolist()  # type: ignore[attr-defined]
        return Table(
            self.source,
            column.metric + ("" if column.epochs is None else f"@{column.epochs}"),
            column.dataset,
            self.space,
            dict(zip(places, numbers, strict=True)),
            column.unit,
            column.higher_is_better,
            None if by_index else self.rows,
        )


def _mean_of_known(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the finite values along the last axis; NaN if there are none."""
    known = np.isfinite(numbers)
    count = known.sum(axis=1)
    total = np.where(known, numbers, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _hint(name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
