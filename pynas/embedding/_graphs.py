"""Cells as graphs with operations on the nodes, for graph encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import NASBench101, NASBench201, SearchSpace
from pynas.spaces.nasbench101 import cell as nb101
from pynas.spaces.nasbench201.space import EDGES, OPERATIONS

INPUT, OUTPUT = "input", "output"


class CellGraphs(ABC):
    """Encodes the cells of a space as graphs of ``nodes`` nodes, and decodes graphs.

    A graph is an upper triangular adjacency matrix [N, N] and one operation per node, one-hot [N, K]. Smaller
    cells are padded with nodes without operation and edges.

    Attributes:
        nodes: N.
        operations: The K names, including input and output.
    """

    nodes: ClassVar[int]
    operations: ClassVar[tuple[str, ...]]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @abstractmethod
    def encode(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """Adjacency [B, N, N] and operations [B, N, K] of architectures, float32 of zeros and ones."""

    @abstractmethod
    def decode(self, adjacency: Tensor, operations: Tensor) -> Architecture | None:
        """The architecture of a graph, or None if it is no cell of the space.

        Args:
            adjacency: bool [N, N]; only entries above the diagonal are read.
            operations: int64 [N], indices into :attr:`operations`.
        """

    @abstractmethod
    def passes_published_check(self, adjacency: Tensor, operations: Tensor) -> bool:
        """Whether the code of arch2vec's authors accepts a decoded graph; arguments as in :meth:`decode`."""

    def identity(self, architecture: Architecture) -> Architecture:
        """The canonical form: decoded graphs count as one if they share it."""
        return self.space.canonical(architecture)


class NASBench201Graphs(CellGraphs):
    """Eight nodes: input, the six edges of the cell, output. All cells have the same adjacency.

    The node of an edge reads the nodes of all edges that end where this edge begins.
    """

    nodes: ClassVar[int] = len(EDGES) + 2
    operations: ClassVar[tuple[str, ...]] = (INPUT, *OPERATIONS, OUTPUT)

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        ends = {0: [0]}
        for node, (_, target) in enumerate(EDGES, start=1):
            ends.setdefault(target, []).append(node)
        self.adjacency = torch.zeros(self.nodes, self.nodes)
        for node, (source, _) in enumerate(EDGES, start=1):
            self.adjacency[ends[source], node] = 1
        self.adjacency[ends[max(ends)], self.nodes - 1] = 1

    def encode(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """The common adjacency, and the operations in the order of the space's edges."""
        decisions = torch.tensor([self.space.check(a) for a in architectures]).view(-1, len(EDGES))
        codes = torch.empty(len(decisions), self.nodes, dtype=torch.int64)
        codes[:, 0], codes[:, -1] = 0, len(self.operations) - 1
        codes[:, 1:-1] = decisions + 1
        one_hot = torch.nn.functional.one_hot(codes, len(self.operations)).float()
        return self.adjacency.expand(len(decisions), -1, -1).clone(), one_hot

    def decode(self, adjacency: Tensor, operations: Tensor) -> Architecture | None:
        """A cell, if the adjacency is the common one and input and output are only at the ends."""
        codes = operations.tolist()
        last = len(self.operations) - 1
        if codes[0] != 0 or codes[-1] != last or not all(0 < code < last for code in codes[1:-1]):
            return None
        if not torch.equal(adjacency.float().triu(1), self.adjacency):
            return None
        return Architecture(self.space.name, tuple(code - 1 for code in codes[1:-1]))

    def passes_published_check(self, adjacency: Tensor, operations: Tensor) -> bool:
        """First node input, last node output, nodes 2 to N - 2 operations; ignores edges and node 1."""
        codes, last = operations.tolist(), len(self.operations) - 1
        return codes[0] == 0 and codes[-1] == last and all(0 < code < last for code in codes[2:-1])


class NASBench101Graphs(CellGraphs):
    """Seven nodes: the vertices of the pruned cell, the last of which is its output, then padding."""

    nodes: ClassVar[int] = 7
    operations: ClassVar[tuple[str, ...]] = (INPUT, *nb101.OPERATIONS, OUTPUT)
    space: NASBench101

    def encode(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """Pruned cells, padded with zero rows."""
        adjacency = torch.zeros(len(architectures), self.nodes, self.nodes)
        operations = torch.zeros(len(architectures), self.nodes, len(self.operations))
        for i, architecture in enumerate(architectures):
            matrix, names = self.space.matrix(architecture)
            adjacency[i, : len(names), : len(names)] = torch.tensor(matrix, dtype=torch.float32)
            operations[i, range(len(names)), [self.operations.index(name) for name in names]] = 1
        return adjacency, operations

    def decode(self, adjacency: Tensor, operations: Tensor) -> Architecture | None:
        """The cell up to the first output; later nodes must have no edges."""
        codes = operations.tolist()
        last = len(self.operations) - 1
        if last not in codes:
            return None
        vertices = codes.index(last) + 1
        edges = adjacency.triu(1)
        if edges[:, vertices:].any():
            return None
        return self._cell(edges[:vertices, :vertices], codes[:vertices])

    def passes_published_check(self, adjacency: Tensor, operations: Tensor) -> bool:
        """The benchmark's own check of all seven vertices; smaller cells do not pass."""
        return self._cell(adjacency.triu(1), operations.tolist()) is not None

    def _cell(self, edges: Tensor, codes: list[int]) -> Architecture | None:
        """The pruned cell; vertices on no path from first to last may have any operation."""
        last = len(codes) - 1
        fed, used = {0}, {last}
        for target in range(1, last + 1):
            if any(edges[source, target] for source in fed):
                fed.add(target)
        for source in range(last - 1, -1, -1):
            if any(edges[source, target] for target in used):
                used.add(source)
        kept = sorted(fed & used)
        if 0 not in kept or last not in kept:
            return None
        try:
            return self.space.from_matrix(
                edges[kept][:, kept].int().tolist(), [self.operations[codes[vertex]] for vertex in kept]
            )
        except UserError:
            return None


def isomorphism_hash(adjacency: Tensor, operations: Tensor) -> int:
    """A number that isomorphic graphs share: by it the authors of arch2vec count distinct decoded graphs.

    Colours of nodes start as (out-degree, in-degree, operation); N times each becomes the colours of its
    predecessors, of its successors and its own. Nothing is pruned first. It is the hash of NAS-Bench-101's
    code (C. Ying et al., ICML 2019, section S3) up to the function that names the colours.

    Args:
        adjacency: bool [N, N]; only entries above the diagonal are read.
        operations: int64 [N].
    """
    rows = adjacency.triu(1).tolist()
    nodes = range(len(rows))
    after = [[w for w in nodes if rows[v][w]] for v in nodes]
    before = [[w for w in nodes if rows[w][v]] for v in nodes]
    colours = [hash((len(after[v]), len(before[v]), code)) for v, code in enumerate(operations.tolist())]
    for _ in nodes:
        colours = [
            hash(
                (
                    tuple(sorted(colours[w] for w in before[v])),
                    tuple(sorted(colours[w] for w in after[v])),
                    colours[v],
                )
            )
            for v in nodes
        ]
    return hash(tuple(sorted(colours)))


def graphs_of(space: SearchSpace) -> CellGraphs:
    """The graph encoding of ``space``; UserError if there is none."""
    if isinstance(space, NASBench201):
        return NASBench201Graphs(space)
    if isinstance(space, NASBench101):
        return NASBench101Graphs(space)
    raise UserError(f"space: {space.name} has no graph encoding; expected nasbench101 or nasbench201")
