"""Where the parts of a space are drawn: layers of alternative blocks between the fixed nodes of a network.

Coordinates are in pixels at zoom 1, y downwards; ``x, y`` of a box is its centre. The drawing is data, so
that whoever draws it computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pynas.spaces import DARTSCNN, NASBench101, NASBench201, SearchSpace, TransNASMicro
from pynas.spaces.darts_cnn import space as darts
from pynas.spaces.nasbench101.cell import EDGES as NASBENCH101_EDGES
from pynas.spaces.nasbench101.cell import MAX_VERTICES
from pynas.spaces.nasbench201.space import EDGES as NASBENCH201_EDGES
from pynas.steer._labels import Decision, labels_of
from pynas.steer._settings import block_id

_BLOCK, _GAP, _PAD, _TITLE = 20.0, 2.0, 6.0, 16.0
_CHARACTER, _LEAST = 6.6, 64.0
_MARGIN, _BETWEEN, _RADIUS = 24.0, 34.0, 16.0
_ROW = 1180.0  # width at which a chain begins a new row


@dataclass
class _Drawing:
    """A drawing in the making: what was placed, with its corners."""

    decisions: Sequence[Decision]
    layers: dict[int, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[dict[str, Any]] = field(default_factory=list)

    def size(self, decision: int) -> tuple[float, float]:
        """Width and height of a layer."""
        found = self.decisions[decision]
        longest = max([len(found.label), *(len(choice.label) for choice in found.choices)])
        width = max(_LEAST, _CHARACTER * longest + 14) + 2 * _PAD
        return width, _TITLE + len(found.choices) * (_BLOCK + _GAP) + 2 * _PAD

    def layer(self, decision: int, x: float, y: float, cell: str = "") -> None:
        width, height = self.size(decision)
        label = self.decisions[decision].label
        self.layers[decision] = {
            "decision": decision,
            "label": label,
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "cell": cell,
        }

    def node(self, name: str, label: str, x: float, y: float) -> None:
        self.nodes[name] = {"id": name, "label": label, "x": x, "y": y, "radius": _RADIUS}

    def link(self, source: str, target: str) -> None:
        """A line from the right of one part to the left of another; around, where that lies behind."""
        a, b = self._place(source), self._place(target)
        start, end = [a[0] + a[2], a[1]], [b[0] - b[2], b[1]]
        points = [start, end]
        if end[0] < start[0]:  # below or above each other
            down = 1 if b[1] >= a[1] else -1
            points = [[a[0], a[1] + down * a[3]], [b[0], b[1] - down * b[3]]]
        self.links.append({"from": source, "to": target, "points": points})

    def _place(self, name: str) -> tuple[float, float, float, float]:
        """Centre, half width and half height of a node or a layer."""
        if name in self.nodes:
            node = self.nodes[name]
            return node["x"], node["y"], node["radius"], node["radius"]
        layer = self.layers[int(name[1:])]
        return layer["x"], layer["y"], layer["width"] / 2, layer["height"] / 2

    def finished(self, kind: str) -> dict[str, Any]:
        """The drawing, moved so that everything lies right of and below the origin."""
        boxes = [self._place(name) for name in [*self.nodes, *(f"L{d}" for d in self.layers)]]
        left = min(x - w for x, _, w, _ in boxes) - _MARGIN
        top = min(y - h for _, y, _, h in boxes) - _MARGIN
        width = max(x + w for x, _, w, _ in boxes) + _MARGIN - left
        height = max(y + h for _, y, _, h in boxes) + _MARGIN - top
        for part in [*self.nodes.values(), *self.layers.values()]:
            part["x"], part["y"] = round(part["x"] - left, 1), round(part["y"] - top, 1)
        for link in self.links:
            link["points"] = [[round(x - left, 1), round(y - top, 1)] for x, y in link["points"]]
        ordered = [self.layers[decision] for decision in sorted(self.layers)]
        return {
            "width": round(width, 1),
            "height": round(height, 1),
            "kind": kind,
            "layers": ordered,
            "blocks": [block for layer in ordered for block in self._blocks(layer)],
            "nodes": list(self.nodes.values()),
            "links": self.links,
        }

    def _blocks(self, layer: dict[str, Any]) -> Iterable[dict[str, Any]]:
        decision = layer["decision"]
        top = layer["y"] - layer["height"] / 2 + _PAD + _TITLE
        for choice, found in enumerate(self.decisions[decision].choices):
            yield {
                "id": block_id(decision, choice),
                "decision": decision,
                "choice": choice,
                "label": found.label,
                "x": layer["x"],
                "y": round(top + choice * (_BLOCK + _GAP) + _BLOCK / 2, 1),
                "width": round(layer["width"] - 2 * _PAD, 1),
                "height": _BLOCK,
                "family": found.family,
                "properties": dict(found.properties),
            }


def layout(space: SearchSpace) -> dict[str, Any]:
    """The drawing of a space with a fixed number of decisions: a JSON object, one layer for each decision.

    Cells lie between their nodes: NAS-Bench-201 and TransNAS-Bench-101 have a layer on each edge,
    NAS-Bench-101 a switch on each edge and a layer at each vertex, DARTS three layers before each node.
    Everything else is a chain in the order of the decisions.
    """
    drawing = _Drawing(labels_of(space))
    if isinstance(space, (NASBench201, TransNASMicro)):
        _edges(drawing, list(enumerate(NASBENCH201_EDGES)), ["in", "1", "2", "out"])
        return drawing.finished("cell")
    if isinstance(space, NASBench101):
        at = {1 + i: len(NASBENCH101_EDGES) + i for i in range(MAX_VERTICES - 2)}
        labels = ["in", *map(str, range(1, MAX_VERTICES - 1)), "out"]
        _edges(drawing, list(enumerate(NASBENCH101_EDGES)), labels, at)
        return drawing.finished("cell")
    if isinstance(space, DARTSCNN):
        _darts(drawing)
        return drawing.finished("cell")
    _chain(drawing)
    return drawing.finished("chain")


def _edges(
    drawing: _Drawing,
    edges: Sequence[tuple[int, tuple[int, int]]],
    labels: Sequence[str],
    at_vertex: dict[int, int] | None = None,
) -> None:
    """Nodes on a line; layers of edges between neighbours on it too, others above and below in lanes."""
    at_vertex = at_vertex or {}
    widest = max(drawing.size(decision)[0] for decision, _ in edges)
    names, x = [], 0.0
    centres = []
    for vertex, label in enumerate(labels):
        half = drawing.size(at_vertex[vertex])[0] / 2 if vertex in at_vertex else _RADIUS
        x += half
        centres.append(x)
        if vertex in at_vertex:
            drawing.layer(at_vertex[vertex], x, 0.0, "cell")
            names.append(f"L{at_vertex[vertex]}")
        else:
            drawing.node(f"n{vertex}", label, x, 0.0)
            names.append(f"n{vertex}")
        x += half + widest + 2 * _BETWEEN
    taken: dict[int, list[tuple[float, float]]] = {0: []}
    tallest = max(drawing.size(decision)[1] for decision in range(len(drawing.decisions)))
    for decision, (source, target) in sorted(edges, key=lambda each: each[1][1] - each[1][0]):
        width, _ = drawing.size(decision)
        centre = (centres[source] + centres[target]) / 2
        low, high = centre - width / 2 - 8, centre + width / 2 + 8
        lane = 0
        if target - source > 1:
            lanes = [sign * k for k in range(1, len(edges) + 1) for sign in (-1, 1)]
            lane = next(k for k in lanes if all(high <= a or b <= low for a, b in taken.get(k, [])))
        taken.setdefault(lane, []).append((low, high))
        drawing.layer(decision, centre, lane * (tallest + 18), "cell")
        drawing.link(names[source], f"L{decision}")
        drawing.link(f"L{decision}", names[target])


def _darts(drawing: _Drawing) -> None:
    top = 0.0
    for number, cell in enumerate(darts.CELLS):
        first = 3 * darts.NODES * number
        heights = [
            sum(drawing.size(first + 3 * node + i)[1] + 14 for i in range(3)) for node in range(darts.NODES)
        ]
        middle = top + max(heights) / 2
        names = [f"{cell}-in{i}" for i in range(2)]
        for i, label in enumerate(("k-2", "k-1")):
            drawing.node(names[i], label, 0.0, middle + (60 if i else -60))
        x = 2 * _BETWEEN
        for node in range(darts.NODES):
            ids = [first + 3 * node + i for i in range(3)]
            width = max(drawing.size(decision)[0] for decision in ids)
            y = middle - heights[node] / 2
            for decision in ids:
                height = drawing.size(decision)[1]
                drawing.layer(decision, x + width / 2, y + height / 2, cell)
                y += height + 14
            x += width + 2 * _BETWEEN
            name = f"{cell}-{node}"
            drawing.node(name, str(node), x, middle)
            for source in names:
                drawing.link(source, f"L{ids[0]}")
            for decision in ids[1:]:
                drawing.link(f"L{ids[0]}", f"L{decision}")
                drawing.link(f"L{decision}", name)
            names.append(name)
            x += 2 * _BETWEEN
        drawing.node(f"{cell}-out", "k", x + _BETWEEN, middle)
        for name in names[2:]:
            drawing.link(name, f"{cell}-out")
        top += max(heights) + 60


def _chain(drawing: _Drawing) -> None:
    rows: list[list[int]] = [[]]
    used = 0.0
    for decision in range(len(drawing.decisions)):
        width = drawing.size(decision)[0] + _BETWEEN
        if rows[-1] and used + width > _ROW:
            rows.append([])
            used = 0.0
        rows[-1].append(decision)
        used += width
    drawing.node("stem", "in", 0.0, 0.0)
    before, y = "stem", 0.0
    for row in rows:
        x = _RADIUS + _BETWEEN
        height = max(drawing.size(decision)[1] for decision in row)
        y += 0.0 if row is rows[0] else height / 2
        for decision in row:
            width = drawing.size(decision)[0]
            drawing.layer(decision, x + width / 2, y)
            drawing.link(before, f"L{decision}")
            before = f"L{decision}"
            x += width + _BETWEEN
        y += height / 2 + _BETWEEN
    last = drawing.layers[rows[-1][-1]]
    drawing.node("head", "out", last["x"] + last["width"] / 2 + _BETWEEN + _RADIUS, last["y"])
    drawing.link(before, "head")
