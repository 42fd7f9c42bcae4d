"""Draws a cell as SVG: nodes on a line, edges as arcs above and below it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from pynas.report.document import GREY, INK, MUTED, escaped

_COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#be185d")
# Colours of the page that the drawing stands on.
_CARD, _TEXT, _FAINT = "var(--card, white)", f"var(--ink, {INK})", f"var(--muted, {MUTED})"
_SPACING, _RADIUS, _LIFT, _CHARACTER = 230, 24, 62, 7.6


# The same operation has the same colour in every cell and on every page: that of the first of these words
# that its name holds, else one that the name itself chooses.
_BY_WORD = {
    "none": GREY,
    "skip": "#059669",
    "identity": "#059669",
    "pool": "#9333ea",
    "dil": "#be185d",
    "sep": "#0891b2",
    "3x3": "#2563eb",
    "1x1": "#d97706",
    "5x5": "#dc2626",
    "7x7": "#65a30d",
}


def colour_of(operation: str) -> str:
    """The colour of an operation, by its name alone."""
    for word, colour in _BY_WORD.items():
        if word in operation:
            return colour
    return _COLOURS[zlib.crc32(operation.encode("utf-8", "replace")) % len(_COLOURS)]


class Edge(Protocol):
    """An operation from one node of a cell to a later one."""

    @property
    def source(self) -> int: ...
    @property
    def target(self) -> int: ...
    @property
    def label(self) -> str: ...


def draw_cell(edges: Sequence[Edge], labels: Sequence[str] = ()) -> str:
    """Draw a directed acyclic graph as an SVG element.

    Args:
        edges: Nodes are numbered in topological order from 0; ``none`` edges are faint and dashed.
        labels: One for each node; by default ``in``, ``1``, ``2`` ... ``out``.

    Returns:
        SVG markup with every label escaped; empty for a graph without edges.
    """
    if not edges:
        return ""
    count = 1 + max(max(edge.source, edge.target) for edge in edges)
    names = labels or ["in", *(str(i) for i in range(1, count - 1)), "out"]
    colours = {edge.label: colour_of(edge.label) for edge in edges if edge.label != "none"}
    levels = _levels(edges)
    middle = _LIFT * max(levels) + 34
    height = middle + _LIFT * max(-min(levels), 0) + 34
    width = _SPACING * (count - 1) + 2 * _RADIUS + 60
    centres = [30 + _RADIUS + _SPACING * i for i in range(count)]
    parts = [
        f'<svg class="cell" viewBox="0 0 {width} {height}" role="img" aria-label="cell" '
        'font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="14" text-anchor="middle">',
        *(_marker(name) for name in sorted({*colours.values(), GREY})),
    ]
    # Labels come after all lines, so that no line crosses a label.
    ordered = sorted(zip(edges, levels, strict=True), key=lambda pair: pair[0].label != "none")
    drawn = [
        _edge(edge, centres[edge.source], centres[edge.target], level, middle, colours.get(edge.label, GREY))
        for edge, level in ordered
    ]
    parts += [line for line, _ in drawn] + [label for _, label in drawn]
    for x, name in zip(centres, names, strict=True):
        parts.append(
            f'<circle cx="{x}" cy="{middle}" r="{_RADIUS}" fill="{_CARD}" '
            f'stroke="{_TEXT}" stroke-width="2"/>'
            f'<text x="{x}" y="{middle + 5}" fill="{_TEXT}" font-weight="600">{escaped(name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _levels(edges: Iterable[Edge]) -> list[int]:
    """The height of each edge's arc, negative below the line: the lowest level that overlaps no other arc.

    Short edges choose first, so longer ones arch over them. Edges between neighbours are straight: level 0.
    """
    listed = list(edges)
    levels = [0] * len(listed)
    taken: list[tuple[int, int, int]] = []  # (level, source, target)
    for i in sorted(
        range(len(listed)), key=lambda i: (listed[i].target - listed[i].source, listed[i].source)
    ):
        source, target = listed[i].source, listed[i].target
        span = target - source
        candidates = ([0] if span == 1 else []) + [
            s * k for k in range(max(span - 1, 1), len(listed) + 2) for s in (1, -1)
        ]
        levels[i] = next(
            level
            for level in candidates
            if not any(level == other and source < t and s < target for other, s, t in taken)
        )
        taken.append((levels[i], source, target))
    return levels


def _edge(edge: Edge, x0: float, x1: float, level: int, middle: float, colour: str) -> tuple[str, str]:
    """The line and the label of one edge."""
    faint = edge.label == "none"
    if level == 0:
        start, end, apex = x0 + _RADIUS, x1 - _RADIUS - 4, middle
        path = f"M {start} {middle} L {end} {middle}"
    else:
        # From the upper or lower side of one circle to the other's; a cubic's apex is at 3/4 of its handles.
        side = -1 if level > 0 else 1
        start, end = x0 + 0.6 * _RADIUS, x1 - 0.6 * _RADIUS
        edge_y = middle + side * 0.8 * _RADIUS
        apex = middle + side * _LIFT * abs(level)
        handle = edge_y + (apex - edge_y) * 4 / 3
        bend = 0.22 * (end - start)
        path = (
            f"M {start} {edge_y} C {start + bend} {handle}, {end - bend} {handle}, {end} {edge_y + side * 4}"
        )
    style = 'stroke-dasharray="4 5" stroke-width="1.5"' if faint else 'stroke-width="2.5"'
    line = f'<path d="{path}" fill="none" stroke="{colour}" {style} marker-end="url(#arrow-{colour[1:]})"/>'
    x, text = (x0 + x1) / 2, escaped(edge.label)
    half = 0.5 * _CHARACTER * len(edge.label) + 8
    label = (
        f'<rect x="{x - half}" y="{apex - 13}" width="{2 * half}" height="26" rx="13" fill="{_CARD}" '
        f'stroke="{colour}" stroke-width="{1 if faint else 1.5}"/>'
        f'<text x="{x}" y="{apex + 5}" fill="{_FAINT if faint else _TEXT}">{text}</text>'
    )
    return line, label


def _marker(colour: str) -> str:
    return (
        f'<marker id="arrow-{colour[1:]}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="5" '
        f'markerHeight="5" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="{colour}"/></marker>'
    )
