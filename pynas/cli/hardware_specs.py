"""Shared by ``search``, ``rank`` and ``hardware``: sources of latencies, and bounds on costs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pynas._errors import UserError
from pynas.cli import specs

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.spaces import SearchSpace
    from pynas.tables import Table

Latency = Annotated[
    list[str] | None,
    typer.Option(
        help="Latencies: table:FILE (of 'pynas hardware build') | hw:FILE | hw:FILE:DEVICE; repeatable."
    ),
]
COSTS = "params, flops, activations, memory (bytes), intensity, latency, latency:DEVICE"

_CONSTRAINT = re.compile(
    r"\s*(?P<name>[a-z][A-Za-z0-9_:./-]*)\s*<=?\s*(?P<number>[0-9.eE+-]+)\s*(?P<suffix>[kKMG]?)\s*$"
)
_SUFFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


def load_with_table(
    sources: Sequence[str] | None, space: str, table: str | None, metric: str | None, dataset: str | None
) -> tuple[tuple[HardwareModel, ...], Table | str | None]:
    """The models of every ``--latency``, of the data set of the table's accuracies where one names none.

    And the table, read if that was needed to know its data set.
    """
    from pynas import hardware, tables

    if not sources:
        return (), table
    chosen = specs.open_space(space)
    known = None if table is None else tables.load(table, chosen, metric, dataset=dataset)
    within = dataset if known is None else known.dataset
    models = tuple(model for source in sources for model in hardware.load(source, chosen, within))
    return models, known


def described(models: Sequence[HardwareModel]) -> list[dict[str, Any]]:
    """For JSON: the cost, its device and unit, what it was measured on, and what speaks against it."""
    return [{**model.facts(), "doubts": list(model.doubts)} for model in models]


def in_words(model: HardwareModel) -> str:
    """Unit, data set and source of a cost, for people."""
    facts = model.facts()
    return ", ".join(str(value) for key, value in facts.items() if key not in ("name", "device") and value)


def open_model(
    source: str, space: SearchSpace | None, dataset: str | None = None
) -> tuple[HardwareModel, ...]:
    """The models in a file or in a ``--latency``; a latency table names its space itself."""
    from pynas import hardware

    kind, _, rest = source.partition(":")
    if kind == "table" or kind not in hardware.kinds():
        path = rest if kind == "table" else source
        if dataset is not None:
            raise UserError("--dataset: a table of 'pynas hardware build' is of one input size; leave it out")
        return (hardware.LatencyTable.load(os.path.expanduser(path), space),)
    if space is None:
        raise UserError(f"{source}: give the space of these architectures: --space NAME")
    return hardware.load(source, space, dataset)


def parse_constraints(texts: Sequence[str]) -> dict[str, float]:
    """Read ``flops<100e6``, ``params<=1.5M``, ``latency:raspi4<20``.

    Raises:
        UserError: The text has another form, or a name has two bounds.
    """
    bounds: dict[str, float] = {}
    for text in texts:
        match = _CONSTRAINT.match(text)
        try:
            value = float(match["number"]) * _SUFFIX[match["suffix"]] if match else None
        except ValueError:
            value = None
        if match is None or value is None:
            raise UserError(
                f"--constraint: expected NAME<NUMBER such as 'flops<100e6' or 'params<=1M', got {text!r}"
            )
        if match["name"] in bounds:
            raise UserError(f"--constraint: {match['name']} has two bounds")
        bounds[match["name"]] = value
    return bounds


def human(name: str, value: float) -> str:
    """A cost or score for people, with its unit."""
    if value != value:
        return "not known"
    if name in ("params", "flops", "activations"):
        return f"{value / 1e6:.3f} M"
    if name == "memory":
        return f"{value / 2**20:.3f} MiB"
    quantity = name.partition(":")[0]
    if quantity in ("latency", "energy"):
        return f"{value:.4g} {'ms' if quantity == 'latency' else 'mJ'}"
    return f"{value:.2f}"
