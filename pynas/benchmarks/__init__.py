"""Tabular benchmarks: the accuracy that trained architectures really reached.

    table = pynas.benchmarks.load("npz:nb201_accuracy.npz", "nasbench201")
    table.accuracy(space.parse("|nor_conv_3x3~0|+..."))

To add a kind of table: one file with a reader ``(rest of the spec, space, metric) -> Table``, its import
below and its line in the registry.
"""

from __future__ import annotations

from pathlib import Path

from pynas import spaces
from pynas._registry import Registry
from pynas.benchmarks import analog, npz
from pynas.benchmarks._base import Reader, Table
from pynas.spaces import SearchSpace

__all__ = ["Table", "kinds", "load"]

_READERS: Registry[Reader] = Registry("kind of table")
_READERS.register("analog", analog.read)
_READERS.register("npz", npz.read)


def kinds() -> tuple[str, ...]:
    """The kinds of table that :func:`load` reads, sorted."""
    return _READERS.names()


def load(spec: str, space: SearchSpace | str, metric: str | None = None) -> Table:
    """Read a table of accuracies.

    Args:
        spec: ``analog`` (NAS-Bench-201 on CIFAR-10, from the package analog-nasbench) or ``npz:FILE`` (keys
            ``arch_str`` and one array of accuracies per metric). Either may end in ``#METRIC``.
        space: The search space that the architectures belong to.
        metric: Which of the table's metrics, if ``spec`` does not say. By default ``baseline_accuracy`` of
            ``analog`` and ``test200_cifar10`` of ``npz``.

    Raises:
        UserError: The table is unknown, absent, damaged, or of another space.
    """
    space = spaces.get(space) if isinstance(space, str) else space
    kind, _, rest = spec.partition(":")
    if "#" in spec and not (rest and Path(rest).exists()):
        base, _, metric = spec.rpartition("#")
        kind, _, rest = base.partition(":")
    return _READERS.get(kind)(rest, space, metric)
