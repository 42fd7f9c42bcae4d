"""NAS-Bench-101: cells of at most 7 vertices and 9 edges, three operations on vertices, 423,624 of them.

Source: C. Ying, A. Klein, E. Christiansen, E. Real, K. Murphy, F. Hutter, "NAS-Bench-101: Towards
Reproducible Neural Architecture Search", ICML 2019, arXiv:1902.09635.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import Edge, SearchSpace, check_positive
from pynas.spaces.nasbench101 import cell as cell
from pynas.spaces.nasbench101 import text as notation
from pynas.spaces.nasbench101.cell import EDGES, INTERIOR, MAX_EDGES, OPERATIONS

if TYPE_CHECKING:
    from torch import nn

NUM_CELLS: Final = 423_624

_NUM_CHOICES: Final = (2,) * len(EDGES) + (len(OPERATIONS),) * INTERIOR
_LABELINGS: Final[int] = len(OPERATIONS) ** INTERIOR
_CHUNK: Final = 4096  # number of cells that unique() decodes at a time


class NASBench101(SearchSpace):
    r"""Cells ``x_t = op_t(proj_t(x_0) + sum_s x_s[:c_t])``, ``num_cells`` in each of ``num_stacks`` stacks.

    Vertex 0 is the input of a cell and the last vertex its output. An inner vertex sums its incoming edges
    and applies its operation: a 3x3 or 1x1 convolution, each followed by batch norm and ReLU, or a 3x3 max
    pooling, all with stride 1. An edge from another vertex brings its first ``c_t`` channels, an edge from
    the input a projection (1x1 convolution, batch norm, ReLU) to ``c_t`` channels. The output concatenates
    its vertices and adds a projection of the input if there is an edge from it. The concatenated vertices
    share the output's channels evenly; a remainder gives the first of them one more each. Another vertex has
    as many channels as the widest vertex that it feeds.

    Network: 3x3 convolution to ``channels``, batch norm, ReLU; stacks of cells, each after the first behind a
    2x2 max pooling and with double the channels; global average pooling; a linear classifier. Batch norms
    have epsilon 1e-5 and momentum 0.003 (0.997 in TensorFlow's convention).

    Decisions: 21 bits, one for each possible edge, sorted by target, then source: (0,1), (0,2), (1,2), (0,3)
    ... (5,6); then the operations of vertices 1 to 5, in the order of :data:`OPERATIONS`. Vertices and edges
    on no path from input to output are not part of the network. As in queries of the benchmark, an
    architecture is valid if a path exists and at most 9 edges lie on paths. 373,754,169 of the 2^21 3^5
    combinations are valid. Indices count these, sorted by the bits, the last most significant, then by the
    operations.

    Two architectures are the same cell if, without their unused vertices, they differ only in the order of
    vertices. There are 423,624 cells, each with its own :meth:`hash`. The order decides which vertices get
    the extra channels. :meth:`canonical` has the order with the fewest parameters and, among several, the
    first by (bits, operations), with the unused vertices last. The benchmark's files have some cells in
    another order, so look up their results by hash.

    Args:
        channels: Channels of the first stack, 128 in the benchmark; at least 4.
        num_stacks: Stacks, 3 in the benchmark.
        num_cells: Cells in each stack, 3 in the benchmark.
    """

    name = "nasbench101"
    summary = "cell of up to 7 vertices and 9 edges with 3 operations (Ying et al., ICML 2019)"
    image_size = 8

    def __init__(self, *, channels: int = 128, num_stacks: int = 3, num_cells: int = 3) -> None:
        check_positive(channels=channels, num_stacks=num_stacks, num_cells=num_cells)
        if channels < 4:
            raise UserError(
                f"channels: expected at least 4, one for each concatenated vertex, got {channels}"
            )
        self.channels = channels
        self.num_stacks = num_stacks
        self.num_cells = num_cells

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Two for each of 21 edges, then three for the operation of each of five vertices."""
        return _NUM_CHOICES

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        """Whether the input reaches the output and at most 9 edges lie on such paths."""
        import pynas._C as _C

        return _C.nasbench101_is_valid(cell.to_code(decisions))

    # ---- the set ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of valid combinations of decisions, 373,754,169; :meth:`unique` gives the 423,624 cells."""
        return len(cell.valid_edges()) * _LABELINGS

    def index(self, arch: Architecture) -> int:
        """Position of ``arch`` among the valid architectures."""
        decisions = self.check(arch)
        rank = int(np.searchsorted(cell.valid_edges(), cell.to_code(decisions) >> cell.EDGE_SHIFT))
        for operation in decisions[len(EDGES) :]:
            rank = rank * len(OPERATIONS) + operation
        return rank

    def from_index(self, index: int) -> Architecture:
        """Inverse of :meth:`index`."""
        rank, labeling = divmod(self._check_index(index), _LABELINGS)
        edges = int(cell.valid_edges()[rank])
        operations = []
        for _ in range(INTERIOR):
            labeling, operation = divmod(labeling, len(OPERATIONS))
            operations.append(operation)
        bits = [edges >> i & 1 for i in range(len(EDGES))]
        return Architecture(self.name, (*bits, *reversed(operations)))

    def unique(self) -> Iterator[Architecture]:
        """The canonical architecture of each of the 423,624 cells, in index order."""
        codes = cell.unique_codes(tuple(self._widths()))
        for start in range(0, len(codes), _CHUNK):
            for decisions in cell.from_codes(codes[start : start + _CHUNK]):
                yield Architecture(self.name, tuple(decisions))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw uniformly from the 423,624 cells; the vertices of the canonical cell go to random positions.

        Uniform decisions would give few and small cells, since most edges of a random matrix lie on no path:
        20,000 such draws have 4,500 different cells, and every tenth has no operation at all.
        """
        codes = cell.unique_codes(tuple(self._widths()))
        (decisions,) = cell.from_codes(codes[rng.randrange(len(codes)), None])
        return Architecture(self.name, cell.spread(decisions, rng))

    # ---- identity --------------------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The cell of ``arch`` with its vertices in the order of the fewest parameters."""
        import pynas._C as _C

        return self._of_code(_C.nasbench101_canonical(cell.to_code(self.check(arch)), self._widths()))

    def pruned(self, arch: Architecture) -> Architecture:
        """``arch`` without what lies on no path from input to output; the other vertices keep their order."""
        import pynas._C as _C

        return self._of_code(_C.nasbench101_prune(cell.to_code(self.check(arch))))

    def hash(self, arch: Architecture) -> str:
        """The module hash of the cell in the benchmark's files: MD5, 32 hexadecimal digits."""
        return self.hashes([arch])[0]

    def hashes(self, archs: Iterable[Architecture]) -> list[str]:
        """The :meth:`hash` of every architecture, at about 200,000 per second and thread."""
        import pynas._C as _C

        codes = np.array([cell.to_code(self.check(arch)) for arch in archs], dtype=np.uint32)
        digests = _C.nasbench101_hash(codes).tobytes().hex()
        return [digests[start : start + 32] for start in range(0, len(digests), 32)]

    def matrix(self, arch: Architecture) -> tuple[cell.Matrix, tuple[str, ...]]:
        """The pruned cell in the benchmark's form.

        Returns:
            The upper-triangular adjacency matrix, [V, V] of 0 and 1, whose rows are the sources; and the V
            operations: ``"input"``, names from :data:`OPERATIONS`, ``"output"``.
        """
        return cell.to_matrix(self.pruned(arch).decisions)

    def from_matrix(
        self, adjacency: Sequence[Sequence[int]] | NDArray[np.integer], ops: Sequence[str | int]
    ) -> Architecture:
        """The architecture of an adjacency matrix and its operations in the benchmark's form.

        Args:
            adjacency: ``[V, V]`` of 0 and 1, upper triangular, rows are sources, V from 2 to 7.
            ops: V names: ``"input"``, names from :data:`OPERATIONS`, ``"output"``; or V labels: -1, positions
                in :data:`OPERATIONS`, -2. Trailing vertices labelled -3 are padding and dropped.

        Raises:
            UserError: The matrix or the operations are not of this form, or the cell is not in the space.
        """
        return self._checked(cell.from_matrix(adjacency, ops))

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """Vertices 1, 2 ... with the vertices that they read: ``conv3x3:0+maxpool3x3:0,1+output:0,2``.

        Vertex 0 is the input. Last vertices without edges, with the first operation, are left out.
        """
        return notation.write(self.check(arch))

    def parse(self, text: str) -> Architecture:
        """Read what :meth:`format` writes."""
        text = text.strip()
        return self._checked(notation.read(text, self._parse_error))

    def _checked(self, decisions: tuple[int, ...]) -> Architecture:
        """An architecture of ``decisions``, or UserError that says what is wrong with its paths."""
        import pynas._C as _C

        if not self.is_valid(decisions):
            try:
                edges = (_C.nasbench101_prune(cell.to_code(decisions)) >> cell.EDGE_SHIFT).bit_count()
                fault = f"expected at most {MAX_EDGES} edges on paths from input to output, got {edges}"
            except ValueError:
                fault = "there is no path from its input to its output"
            raise UserError(f"not a {self.name} architecture: {fault}: {notation.write(decisions)}")
        return Architecture(self.name, decisions)

    def encode(self, arch: Architecture) -> list[float]:
        """The 21 bits, then each operation one-hot: 36 numbers."""
        decisions = self.check(arch)
        code = [float(bit) for bit in decisions[: len(EDGES)]]
        for operation in decisions[len(EDGES) :]:
            code += [float(choice == operation) for choice in range(len(OPERATIONS))]
        return code

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The edges of the pruned cell by target; the label of an edge is the operation of its target."""
        rows, operations = self.matrix(arch)
        vertices = range(len(operations))
        return tuple(Edge(s, t, operations[t]) for t in vertices for s in range(t) if rows[s][t])

    # ---- the network -----------------------------------------------------------------------------

    def _stacks(self) -> list[list[tuple[int, int]]]:
        """``(input channels, output channels)`` of every cell of every stack."""
        channels = [self.channels << max(stack - 1, 0) for stack in range(self.num_stacks + 1)]
        return [
            [(before, after), *[(after, after)] * (self.num_cells - 1)]
            for before, after in itertools.pairwise(channels)
        ]

    def _widths(self) -> list[tuple[int, int, int]]:
        """``(input channels, output channels, cells)`` of all cells of the network."""
        pairs = Counter(itertools.chain.from_iterable(self._stacks()))
        return [(before, after, cells) for (before, after), cells in pairs.items()]

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: ``sum over convolutions of (k^2 C_in C_out + 2 C_out)`` plus the classifier.

        Equal to the ``trainable_parameters`` of the benchmark's files.
        """
        import pynas._C as _C

        code = cell.to_code(self.check(arch))
        check_positive(num_classes=num_classes, in_channels=in_channels)
        total = 9 * in_channels * self.channels + 2 * self.channels
        for width_in, width_out, cells in self._widths():
            weights, normed = _C.nasbench101_cost(code, width_in, width_out)
            total += cells * (weights + 2 * normed)
        return total + ((self.channels << self.num_stacks - 1) + 1) * num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image.

        The image is halved between stacks, an odd size rounded up.
        """
        import pynas._C as _C

        code = cell.to_code(self.check(arch))
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        total = 9 * in_channels * self.channels * image_size**2
        for i, stack in enumerate(self._stacks()):
            image_size = (image_size + 1) // 2 if i > 0 else image_size
            weights = sum(_C.nasbench101_cost(code, before, after)[0] for before, after in stack)
            total += weights * image_size**2
        return total + (self.channels << self.num_stacks - 1) * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; modules are named like the variable scopes of the authors' TensorFlow code.

        The benchmark's networks are always pruned, so ``prune`` changes nothing.
        """
        import pynas._C as _C
        from pynas.spaces.nasbench101.network import NASBench101Network

        code = cell.to_code(self.check(arch))
        check_positive(num_classes=num_classes, in_channels=in_channels)
        rows, operations = self.matrix(arch)
        return NASBench101Network(
            [[s for s in range(t) if rows[s][t]] for t in range(len(rows))],
            operations,
            [[_C.nasbench101_channels(code, *pair) for pair in stack] for stack in self._stacks()],
            num_classes=num_classes,
            in_channels=in_channels,
        )

    def _of_code(self, code: int) -> Architecture:
        (decisions,) = cell.from_codes(np.array([code], dtype=np.uint32))
        return Architecture(self.name, tuple(decisions))
