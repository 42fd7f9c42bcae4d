"""The value that names a discrete DARTS cell pair.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pynas import _json
from pynas._files import shortened

Edges = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Genotype:
    """Two cells, each a tuple of ``(operation, source)``, the same number of them for each node in order.

    Sources 0 and 1 are the cell's inputs, 2 the first node, and so on. The fields are those of the authors'
    ``Genotype``, whose ``concat`` is every node here.
    """

    normal: Edges
    reduce: Edges

    def __post_init__(self) -> None:
        # Lists (of JSON, of the authors' code) would break hashing far from the place that made them.
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
            match _json.loads(text):
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
        """Node by node: ``sep_conv_3x3~0+skip_connect~1|...``, the normal cell first."""

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
        weights: ``[edges, candidates]``; the edges of a node follow each other, two for the first node and
            one more for each further.
        candidates: Names of the columns.
        keep: Edges that stay at each node.

    Returns:
        ``(operation, source)`` pairs, of each node the stronger edge first; equal ones by position.
    """
    columns = [k for k, name in enumerate(candidates) if name != "none"]
    if not columns:
        raise ValueError("candidates: expected one other than none to choose")
    edges: list[tuple[str, int]] = []
    start, incoming = 0, 2
    while start < len(weights):
        best = [max(columns, key=row.__getitem__) for row in weights[start : start + incoming]]
        order = sorted(range(incoming), key=lambda i: -weights[start + i][best[i]])
        edges.extend((candidates[best[i]], i) for i in order[:keep])
        start, incoming = start + incoming, incoming + 1
    return tuple(edges)
