"""Loads device models by their command-line names."""

from __future__ import annotations

import os
from collections.abc import Callable

from pynas import spaces
from pynas._errors import UserError
from pynas._registry import Registry
from pynas.hardware.latency_table import LatencyTable
from pynas.hardware.model import HardwareModel
from pynas.hardware.tabular import TabularLatency
from pynas.spaces import SearchSpace

Reader = Callable[[str, SearchSpace, str | None], tuple[HardwareModel, ...]]


def _tabular(rest: str, space: SearchSpace, dataset: str | None) -> tuple[HardwareModel, ...]:
    path, device = _split(rest)
    return TabularLatency.read(path, space, device, dataset)


def _table(rest: str, space: SearchSpace, _: str | None) -> tuple[HardwareModel, ...]:
    return (LatencyTable.load(os.path.expanduser(rest), space),)


_READERS: Registry[Reader] = Registry("kind of latencies")
_READERS.register("hw", _tabular)
_READERS.register("table", _table)


def kinds() -> tuple[str, ...]:
    """The kinds of source that :func:`load` reads, sorted."""
    return _READERS.names()


def load(spec: str, space: SearchSpace | str, dataset: str | None = None) -> tuple[HardwareModel, ...]:
    """Read models of devices.

    Args:
        spec: ``hw:FILE`` or ``hw:FILE:DEVICE``, an archive for :meth:`TabularLatency.read`; or
            ``table:FILE``, a table from :meth:`LatencyTable.build` or ``pynas hardware build``.
        space: The search space that the architectures belong to.
        dataset: Data set of the networks' inputs, where the file has several and ``spec`` names none; a
            table of ``pynas hardware build`` is of the input size that it was built for.

    Raises:
        UserError: The source is unknown, absent, damaged, or of another space.
    """
    space = spaces.get(space) if isinstance(space, str) else space
    kind, _, rest = spec.partition(":")
    reader = _READERS.get(kind)
    if not rest:
        raise UserError(f"latency {spec}: give a file, as in {kind}:FILE")
    return reader(rest, space, dataset)


def _split(text: str) -> tuple[str, str | None]:
    """Split ``FILE:DEVICE``; the name of an existing FILE may contain a colon."""
    path, colon, device = text.rpartition(":")
    if not colon or os.path.exists(os.path.expanduser(text)):
        return text, None
    return path, device or None
