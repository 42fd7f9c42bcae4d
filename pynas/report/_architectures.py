"""The architectures of a page: all of them as data, a table that sorts, and what is drawn of one.

The page holds each architecture once, however many plots show it: a point knows the row of its own only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pynas._errors import printable
from pynas.hardware.model import UNITS
from pynas.report import document
from pynas.report._cell import Edge, colour_of
from pynas.report._columns import numbers, texts

_UNITS = {"flops": "multiply-adds", "params": "weights", "memory": "bytes", "activations": "numbers"}


@dataclass(frozen=True)
class Column:
    """Values of all architectures.

    Attributes:
        name: What they are, with the unit.
        values: Texts, or numbers with NaN or None where one is not known.
        hover: Whether the pointer shows them at a point of a plot.
    """

    name: str
    values: Sequence[str] | Sequence[float | None] | np.ndarray[Any, Any]
    hover: bool = False

    def data(self) -> dict[str, Any]:
        """For the script of the page."""
        held = list(self.values)
        if held and isinstance(held[0], str):
            return {"name": printable(self.name), "texts": texts([str(value) for value in held])}
        return {
            "name": printable(self.name),
            "hover": self.hover,
            "numbers": numbers([None if value is None else float(value) for value in held]),
        }


def with_unit(name: str) -> str:
    """A quantity's name with its unit where that is known."""
    if name in _UNITS:
        return f"{name} ({_UNITS[name]})"
    unit = UNITS.get(name.partition(":")[0])
    return f"{name} ({unit})" if unit else name


def table_of_all(
    kind: str,
    numbered: Column,
    labels: Sequence[str],
    columns: Sequence[Column],
    graphs: Sequence[Iterable[Edge]] = (),
    node_labels: Sequence[str] = (),
) -> str:
    """A table of all architectures, and the panel that shows the one that is picked in it or in a plot.

    Args:
        kind: What a row is: ``trial``, ``architecture``.
        numbered: The number that people know each row by; the first column.
        labels: Texts of the architectures; the second column.
        columns: What else is known of them.
        graphs: Edges of each architecture, empty where its space draws none.
        node_labels: As :func:`draw_cell` takes them.
    """
    operations: dict[str, int] = {}
    edges = [
        " ".join(
            f"{e.source} {e.target} {operations.setdefault(printable(e.label), len(operations))}"
            for e in graph
        )
        for graph in graphs
    ]
    every = [numbered, Column("architecture", list(labels)), *columns]
    data = {
        "kind": kind.capitalize(),
        "count": len(labels),
        "columns": [column.data() for column in every] if labels else [],
        "edges": texts(edges) if any(edges) else None,
        "nodes": [printable(label) for label in node_labels],
        "operations": list(operations),
        "colours": {name: colour_of(name) for name in operations},
    }
    head = "".join(
        f'<th class="{"text" if column.values is not None and _is_text(column) else ""}">'
        f"<button>{document.escaped(column.name)}</button></th>"
        for column in every
    )
    return (
        '<div class="bar"><input type="search" id="find" placeholder="find a text" aria-label="find a text">'
        '<span class="note" id="found" aria-live="polite"></span></div>'
        f'<div class="scroll"><table id="all"><thead><tr>{head}</tr></thead><tbody></tbody></table></div>'
        '<button id="more" hidden>more rows</button>'
        '<section id="picked" hidden tabindex="-1" aria-label="the picked architecture">'
        '<button id="close" aria-label="close">×</button><h2></h2><p class="best"><code></code></p>'
        '<div class="drawing"></div><dl></dl><p class="note" aria-live="polite"></p></section>'
        + document.data_script(json.dumps(data, separators=(",", ":")), "architectures", single=True)
    )


def _is_text(column: Column) -> bool:
    return len(column.values) > 0 and isinstance(column.values[0], str)
