"""Tabular benchmarks: ground-truth accuracies and costs of trained architectures.

    benchmark = pynas.tables.open("nats-tss.npz")
    benchmark.query(arch, "test_accuracy", dataset="cifar100", epochs=200)
    table = pynas.tables.load("nats:nats-tss.npz#test_accuracy@200", "nasbench201", dataset="cifar100")
    table.accuracy(arch)

A :class:`Benchmark` holds all metrics, data sets, training lengths and runs of a file; a :class:`Table` holds
one of them, as a search or a ranking needs. :func:`convert` makes these files from those that the authors of
NAS-Bench-101, NAS-Bench-201, NATS-Bench, TransNAS-Bench-101 and HW-NAS-Bench publish.

To add a kind of table, write one file with a reader ``(rest of the spec, space, metric) -> Table``, import it
below and add it to the registry.
"""

from __future__ import annotations

import os

from pynas import spaces
from pynas._errors import UserError
from pynas._registry import Registry
from pynas.spaces import SearchSpace
from pynas.tables import analog, compact, npz
from pynas.tables._base import Reader, Table
from pynas.tables._benchmark import Benchmark
from pynas.tables._columns import Column
from pynas.tables._families import FAMILIES
from pynas.tables._inspect import inspect
from pynas.tables._open import load_content, open
from pynas.tables.conversion import convert

__all__ = [
    "FAMILIES",
    "Benchmark",
    "Column",
    "Table",
    "convert",
    "inspect",
    "kinds",
    "load",
    "load_content",
    "open",
]

_READERS: Registry[Reader | None] = Registry("kind of table")
_READERS.register("analog", analog.read)
_READERS.register("npz", npz.read)
for _kind in compact.KINDS:
    _READERS.register(_kind, None)  # read separately: these also take a data set


def kinds() -> tuple[str, ...]:
    """The kinds of table that :func:`load` reads, sorted."""
    return _READERS.names()


def load(
    spec: str, space: SearchSpace | str, metric: str | None = None, *, dataset: str | None = None
) -> Table:
    """Read one metric of a table.

    Args:
        spec: ``analog`` (NAS-Bench-201 on CIFAR-10, from the package analog-nasbench); ``npz:FILE`` (keys
            ``arch_str``, without which arrays are in the index order of the space, and one array of
            accuracies per metric); ``table:FILE`` (a file that ``pynas tables
            convert`` wrote, or another archive with conventional keys), or ``nb101:FILE``, ``nb201:FILE``,
            ``nats:FILE``, ``transnas:FILE``, ``hw:FILE``, which also require that benchmark. Each may end in
            ``#METRIC``, where METRIC may end in ``@EPOCHS``.
        space: The search space of the architectures.
        metric: Metric of the table, if ``spec`` names none. Default: ``baseline_accuracy`` for ``analog``,
            ``test200_cifar10`` for ``npz``, otherwise the test accuracy after the longest training.
        dataset: Data set or task that the architectures were trained on; by default CIFAR-10 if available.

    Raises:
        UserError: The table is unknown, absent, damaged, or of another space.
    """
    space = spaces.get(space) if isinstance(space, str) else space
    kind, _, rest = spec.partition(":")
    if "#" in spec and not (rest and os.path.exists(rest)):
        base, _, metric = spec.rpartition("#")
        kind, _, rest = base.partition(":")
    reader = _READERS.get(kind)
    if reader is None:
        return compact.read(kind, rest, space, metric, dataset)
    table = reader(rest, space, metric)
    if dataset not in (None, table.dataset):
        other = f"; try table:{rest}" if kind == "npz" else ""
        raise UserError(f"table {kind}: {table.metric} is of {table.dataset}, not of {dataset!r}{other}")
    return table
