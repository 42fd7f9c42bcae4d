"""Tabular benchmarks: the accuracy that trained architectures really reached.

    benchmark = pynas.benchmarks.open("nats-tss.npz")
    benchmark.query(arch, "test_accuracy", dataset="cifar100", epochs=200)
    table = pynas.benchmarks.load("nats:nats-tss.npz#test_accuracy@200", "nasbench201", dataset="cifar100")
    table.accuracy(arch)

A :class:`Benchmark` knows all metrics, data sets, training lengths and runs of a file, a :class:`Table` one
of them, which is what a search or a ranking needs. :func:`convert` makes the files from those that the
authors of NAS-Bench-101, NAS-Bench-201, NATS-Bench, TransNAS-Bench-101 and HW-NAS-Bench publish.

To add a kind of table: one file with a reader ``(rest of the spec, space, metric) -> Table``, its import
below and its line in the registry.
"""

from __future__ import annotations

import os

from pynas import spaces
from pynas._errors import UserError
from pynas._registry import Registry
from pynas.benchmarks import analog, compact, npz
from pynas.benchmarks._base import Reader, Table
from pynas.benchmarks._benchmark import Benchmark
from pynas.benchmarks._columns import Column
from pynas.benchmarks._convert import convert
from pynas.benchmarks._families import FAMILIES
from pynas.benchmarks._open import load_content, open
from pynas.spaces import SearchSpace

__all__ = ["FAMILIES", "Benchmark", "Column", "Table", "convert", "kinds", "load", "load_content", "open"]

_READERS: Registry[Reader | None] = Registry("kind of table")
_READERS.register("analog", analog.read)
_READERS.register("npz", npz.read)
for _kind in compact.KINDS:
    _READERS.register(_kind, None)  # they take a data set too


def kinds() -> tuple[str, ...]:
    """The kinds of table that :func:`load` reads, sorted."""
    return _READERS.names()


def load(
    spec: str, space: SearchSpace | str, metric: str | None = None, *, dataset: str | None = None
) -> Table:
    """Read one metric of a table.

    Args:
        spec: ``analog`` (NAS-Bench-201 on CIFAR-10, from the package analog-nasbench); ``npz:FILE`` (keys
            ``arch_str`` and one array of accuracies per metric); ``table:FILE`` (a file that ``pynas tables
            convert`` wrote, or another archive with conventional keys), or ``nb101:FILE``, ``nb201:FILE``,
            ``nats:FILE``, ``transnas:FILE``, ``hw:FILE``, which also say what it must be. Each may end in
            ``#METRIC``, where METRIC may end in ``@EPOCHS``.
        space: The search space that the architectures belong to.
        metric: Which of the table's metrics, if ``spec`` does not say. By default ``baseline_accuracy`` of
            ``analog``, ``test200_cifar10`` of ``npz``, and the test accuracy after the longest training of
            the others.
        dataset: What the architectures were trained on, or their task; by default CIFAR-10 where there is
            such a one.

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
