"""The value that describes a pair of discrete DARTS cells.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pynas._io import strict_json
from pynas._io.files import shortened

Edges = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Genotype:
    """Two cells, each a tuple of ``(operation, source)`` edges: node by node, equally many for each.

    Sources 0 and 1 are the cell's inputs, 2 is the first node, and so on. The fields are those of the
    authors' ``Genotype`` without ``concat``, which is every node here.
    """

    normal: Edges
    reduce: Edges

    def __post_init__(self) -> None:
        # Lists, as JSON and the authors' code have them, would make hashing fail far from their origin.
        for field in ("normal", "reduce"):
            edges = tuple((str(op), int(source)) for op, source in getattr(self, field))
            object.__setattr__(self, field, edges)

    def to_json(self) -> str:
        """Serialise to a compact JSON object."""
        return json.dumps({"normal": self.normal, "reduce": self.reduce}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read what :meth:`to_json` wrote; anything else raises ValueError."""
        try:
            match strict_json.loads(text):
                case {"normal": [*normal], "reduce": [*reduce], **more} if not more:
                    if all(map(_is_edge, (*normal, *reduce))):
                        return cls(tuple(map(tuple, normal)), tuple(map(tuple, reduce)))
            reason = ""
        except ValueError as error:
            reason = f": {error}"
        raise ValueError(
            'text: expected a genotype as {"normal": [["sep_conv_3x3", 0], ...], "reduce": [...]}, '
            f"got {shortened(repr(text))}{reason}"
        )

    def __str__(self) -> str:
        """``sep_conv_3x3~0+skip_connect~1|...``: node by node, the normal cell first."""

        def cell(edges: Edges) -> str:
            per_node = 2 if len(edges) % 2 == 0 else len(edges)
            nodes = [edges[i : i + per_node] for i in range(0, len(edges), per_node)]
            return "|".join("+".join(f"{op}~{source}" for op, source in node) for node in nodes)

        return f"normal {cell(self.normal)}  reduce {cell(self.reduce)}"


def _is_edge(edge: object) -> bool:
    match edge:
        case [str(), int(source)] if source >= 0 and source is not True and source is not False:
            return True
    return False


def derive_edges(weights: Sequence[Sequence[float]], candidates: Sequence[str], keep: int = 2) -> Edges:
    """The strongest ``keep`` edges of each node, each with its strongest operation other than ``none``.

    Args:
        weights: ``[edges, candidates]``, ordered by node; the first node has two edges, each next one more.
        candidates: Names of the columns.
        keep: How many edges to keep at each node.

    Returns:
        ``(operation, source)`` pairs, node by node, the strongest edge first; equal ones in order of
        position.
    """
    columns = [k for k, name in enumerate(candidates) if name != "none"]
    if not columns:
        raise ValueError("candidates: expected at least one other than none")
    edges: list[tuple[str, int]] = []
    start, incoming = 0, 2
    while start < len(weights):
        best = [max(columns, key=row.__getitem__) for row in weights[start : start + incoming]]
        order = sorted(range(incoming), key=lambda i: -weights[start + i][best[i]])
        edges.extend((candidates[best[i]], i) for i in order[:keep])
        start, incoming = start + incoming, incoming + 1
    return tuple(edges)
