"""DARTS on images: a normal and a reduction cell of four nodes, two of 7 operations into each.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
arXiv:1806.09055.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces._genotype_text import EdgeText, GenotypeReader
from pynas.spaces.base import Edge, SearchSpace, check_positive
from pynas.spaces.darts_cnn import counts as counts
from pynas.spaces.darts_cnn import notations

if TYPE_CHECKING:
    from torch import nn

    from pynas.nn.darts_supernet import DARTSSupernet
    from pynas.nn.genotype import Genotype

OPERATIONS: Final = counts.OPERATIONS
NODES: Final = 4
PAIRS: Final = tuple(tuple(itertools.combinations(range(2 + node), 2)) for node in range(NODES))
_NUM_CHOICES: Final = tuple(n for pairs in PAIRS for n in (len(pairs), len(OPERATIONS), len(OPERATIONS))) * 2
"""The two sources of a node: 0 and 1 are the cell's inputs, 2 the first node."""

NETWORKS: Final = {"search": (16, 8), "cifar": (36, 20), "imagenet": (48, 14)}
"""Channels and cells of the published networks."""

CELLS: Final = ("normal", "reduce")
SWAPPED: Final = "1"  # in the notation of an architecture: the higher source comes first
_HIGHEST: Final = tuple(1 + node for node in range(NODES) for _ in range(2))  # largest source of each edge
_PER_CELL: Final = 3 * NODES  # decisions
_OUTPUT: Final = 2 + NODES  # number of the output in the graph of a cell

# two (operation, source) pairs for each node
_Node = tuple[tuple[int, int], tuple[int, int]]

PUBLISHED: Final = {
    "DARTS_V1": (
        "normal sep_conv_3x3~1+sep_conv_3x3~0|skip_connect~0+sep_conv_3x3~1|skip_connect~0+sep_conv_3x3~1"
        "|sep_conv_3x3~0+skip_connect~2  reduce max_pool_3x3~0+max_pool_3x3~1|skip_connect~2+max_pool_3x3~0"
        "|max_pool_3x3~0+skip_connect~2|skip_connect~2+avg_pool_3x3~0"
    ),
    "DARTS_V2": (
        "normal sep_conv_3x3~0+sep_conv_3x3~1|sep_conv_3x3~0+sep_conv_3x3~1|sep_conv_3x3~1+skip_connect~0"
        "|skip_connect~0+dil_conv_3x3~2  reduce max_pool_3x3~0+max_pool_3x3~1|skip_connect~2+max_pool_3x3~1"
        "|max_pool_3x3~0+skip_connect~2|skip_connect~2+max_pool_3x3~1"
    ),
}
"""The paper's cells, found by first- and second-order search; :meth:`DARTSCNN.parse` reads the names."""


class DARTSCNN(SearchSpace):
    r"""Cells whose nodes each sum two operations, on an input of the cell or an earlier node.

    A cell has four nodes, which its output concatenates. Its inputs are the outputs of the two previous
    cells, each through ReLU - 1x1 convolution - batch norm. In a reduction cell, operations on inputs have
    stride 2. Size: ``(1 * 3 * 6 * 10 * 7^8)^2 = 1,037,664,180^2``, about 1.08e18.

    Decisions, node by node, the normal cell first: the pair of sources (position in :data:`PAIRS`), the
    operation on the lower source, the operation on the higher one (positions in :data:`OPERATIONS`). Since a
    pair is one decision, there are no constraints; the pair of the first node is always (0, 1).

    Another numbering of the nodes only permutes the channels of the cell's output, so :meth:`canonical` is
    the numbering with the smallest decisions; 382,128,166 cells are canonical.

    Args:
        network: Preset of ``channels``, ``num_cells`` and the stem: ``"search"`` (16 channels, 8 cells, as
            DARTS searches; quick to score), ``"cifar"`` (36, 20, its evaluation on CIFAR) or ``"imagenet"``
            (48, 14, with a stem that divides the image size by 8).
        channels: Channels of a node in the first cells; replaces the preset's.
        num_cells: Number of cells; replaces the preset's. Those at one and two thirds are reductions.
        auxiliary: Whether there is an auxiliary head after the second reduction. In train mode the network
            then returns ``(logits, auxiliary logits)``, which the paper's loss weights by 1 and 0.4; in eval
            mode it returns logits. :meth:`params` and :meth:`macs` count the head.
        drop_path: Final probability of dropping a path, 0.2 in the paper. It starts at 0;
            ``network.schedule_drop_path(epoch / epochs)`` raises it linearly.
    """

    name = "darts_cnn"
    summary = "normal and reduction cell of 4 nodes, 2 of 7 operations each (DARTS, ICLR 2019)"
    image_size = 8
    node_labels = ("k-2", "k-1", "0", "1", "2", "3", "k") * 2

    def __init__(
        self,
        *,
        network: str = "search",
        channels: int | None = None,
        num_cells: int | None = None,
        auxiliary: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        if network not in NETWORKS:
            raise UserError(f"network: expected one of {', '.join(NETWORKS)}, got {network!r}")
        if not (isinstance(drop_path, int | float) and 0 <= drop_path < 1):
            raise UserError(f"drop_path: expected a probability in [0, 1), got {drop_path!r}")
        self.network = network
        self.channels = NETWORKS[network][0] if channels is None else channels
        self.num_cells = NETWORKS[network][1] if num_cells is None else num_cells
        self.auxiliary = auxiliary
        self.drop_path = drop_path
        check_positive(channels=self.channels, num_cells=self.num_cells)
        if network == "imagenet" and self.channels < 2:
            raise UserError("channels: the ImageNet stem halves them, expected at least 2, got 1")

    @property
    def num_choices(self) -> tuple[int, ...]:
        """For each of the four nodes of both cells: 1, 3, 6 or 10 pairs of sources, 7 and 7 operations."""
        return _NUM_CHOICES

    # ---- identity and notation -------------------------------------------------------------------

    def canonical(self, arch: Architecture) -> Architecture:
        """The numbering of the nodes of each cell that gives the smallest decisions."""
        return self._from_cells([_canonical_cell(cell) for cell in self.cells(arch)])

    def cells(self, arch: Architecture) -> tuple[list[_Node], list[_Node]]:
        """Normal and reduction cell; each node has two (operation, source) pairs, the lower source first."""
        decisions = self.check(arch)
        normal, reduce = (
            [_node(i, *decisions[start + 3 * i : start + 3 * i + 3]) for i in range(NODES)]
            for start in (0, _PER_CELL)
        )
        return normal, reduce

    def _from_cells(self, cells: list[list[_Node]], notation: str = "") -> Architecture:
        return Architecture(self.name, tuple(d for cell in cells for d in _decisions(cell)), notation)

    def genotype(self, arch: Architecture) -> Genotype:
        """The architecture as the :class:`pynas.nn.Genotype` that supernets take; :meth:`parse` reads it.

        The two edges of a node come in the order of the text that the architecture was parsed from, else the
        lower source first.
        """
        from pynas.nn.genotype import Genotype

        swapped = iter(arch.notation or "0" * len(CELLS) * NODES)
        normal, reduce = (
            tuple(
                (OPERATIONS[operation], source)
                for node in cell
                for operation, source in (node[::-1] if next(swapped) == SWAPPED else node)
            )
            for cell in self.cells(arch)
        )
        return Genotype(normal, reduce)

    def compact(self, arch: Architecture) -> str:
        """``normal op~0+op~1|op~0+op~2|op~0+op~1|op~2+op~4  reduce ...``, which :meth:`parse` also reads."""
        return str(self.genotype(arch))

    def format(self, arch: Architecture) -> str:
        """The text of the authors' code, ``Genotype(normal=[('sep_conv_3x3', 0), ...], ...)``."""
        genotype = self.genotype(arch)
        concat = f"range(2, {_OUTPUT})"
        return (
            f"Genotype(normal={list(genotype.normal)}, normal_concat={concat}, "
            f"reduce={list(genotype.reduce)}, reduce_concat={concat})"
        )

    def parse(self, text: str | Genotype) -> Architecture:
        """Read a genotype.

        Args:
            text: ``Genotype(...)`` as in the authors' code, its JSON form, the compact form (see
                :meth:`compact`), a published name (:data:`PUBLISHED`), the numbers of NAS-Bench-301's
                records, ``(((source, operation), ...), (...))`` without ``none``, or the value that
                ``supernet.derive()`` returns. The two edges of a node may come in any order. It is kept for
                :meth:`build`, whose parameters are numbered by it, as in the authors' code.

        Raises:
            UserError: The text is malformed, or a node has the same source twice; the message points at the
                place.
        """
        text = (text if isinstance(text, str) else text.to_json()).strip()
        text = PUBLISHED.get(text, text)
        text = notations.genotype_text(text) or text
        reader = GenotypeReader(text, self._parse_error, OPERATIONS)
        found: dict[str, list[EdgeText]] = {}

        def edges(name: str) -> None:
            found[name] = reader.edges(_HIGHEST)

        if reader.is_compact(text):
            for name in CELLS:
                if reader.token.text != name:
                    start = f"'Genotype(', {' or '.join(PUBLISHED)}, or " if name == CELLS[0] else ""
                    raise reader.error(f"{start}{name!r}", choices=(name, *PUBLISHED))
                reader.advance()
                found[name] = reader.compact_edges(_HIGHEST, 2)
            reader.end()
        else:
            readers: dict[str, Any] = {}
            for name in CELLS:
                readers[name] = lambda name=name: edges(name)
                readers[f"{name}_concat"] = lambda: reader.concat(2, _OUTPUT - 1)
            reader.fields(readers, CELLS)
        swapped = "".join(
            SWAPPED if a.source > b.source else "0"
            for name in CELLS
            for a, b in zip(found[name][::2], found[name][1::2], strict=True)
        )
        cells = [self._nodes(reader, found[name]) for name in CELLS]
        return self._from_cells(cells, swapped if SWAPPED in swapped else "")

    def _nodes(self, reader: GenotypeReader, edges: list[EdgeText]) -> list[_Node]:
        nodes = []
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            if a.source == b.source:
                raise reader.error(f"another source than {a.source} (a node has two different ones)", b.at)
            low, high = sorted((a, b), key=lambda edge: edge.source)
            nodes.append(
                (
                    (OPERATIONS.index(low.operation), low.source),
                    (OPERATIONS.index(high.operation), high.source),
                )
            )
        return nodes

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """Both cells side by side: inputs 0, 1, nodes 2-5, output 6; 7 more of each in the reduction cell."""
        edges = []
        for offset, cell in zip((0, _OUTPUT + 1), self.cells(arch), strict=True):
            for i, node in enumerate(cell):
                edges += [
                    Edge(offset + source, offset + 2 + i, OPERATIONS[operation]) for operation, source in node
                ]
            edges += [Edge(offset + 2 + i, offset + _OUTPUT, "concat") for i in range(NODES)]
        return tuple(edges)

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: stem, classifier, auxiliary head, and each cell's input convolutions and operations.

        With C channels per node: ``(C_0 + C_1 + 4) C`` for inputs of C_0 and C_1 channels,
        ``2 (k^2 + C + 2) C`` for a separable convolution, half of that for a dilated one, ``(C + 2) C`` for a
        skip connection of stride 2.
        """
        cells = self.cells(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return counts.params(self._skeleton(), cells, num_classes, in_channels)

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifiers for one ``image_size`` x ``image_size`` image."""
        cells = self.cells(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        return counts.macs(self._skeleton(), cells, num_classes, image_size, in_channels)

    def _skeleton(self) -> counts.Skeleton:
        return counts.Skeleton(self.channels, self.num_cells, self.network == "imagenet", self.auxiliary)

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' code, so their weights load.

        That code numbers the operations of a cell in the order of the genotype's text: for published weights
        build what :meth:`parse` made of the published genotype.

        Every operation of every cell reaches the output, so ``prune`` has no effect. Images may have any
        size; with an auxiliary head, at least 8 x 8 pixels (7 x 7 with the ImageNet stem) must remain after
        the second reduction, as they do at the published image sizes.
        """
        from pynas.spaces.darts_cnn.network import DARTSNetwork

        genotype = self.genotype(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return DARTSNetwork(
            genotype,
            self._skeleton(),
            num_classes=num_classes,
            in_channels=in_channels,
            drop_path=self.drop_path,
        )

    def supernet(self, num_classes: int = 10, in_channels: int = 3, **options: Any) -> DARTSSupernet:
        """The search network of these channels and cells; ``options`` as in :class:`pynas.nn.DARTSSupernet`.

        ``space.parse(supernet.derive())`` is the architecture that it found;
        ``supernet(x, space.genotype(arch))`` runs one architecture.
        """
        from pynas.nn.darts_supernet import DARTSSupernet

        if self.network == "imagenet":
            raise UserError('supernet: has the CIFAR stem; make the space with network="search"')
        return DARTSSupernet(self.channels, self.num_cells, num_classes, in_channels=in_channels, **options)


def _node(index: int, pair: int, low: int, high: int) -> _Node:
    a, b = PAIRS[index][pair]
    return (low, a), (high, b)


def _decisions(cell: list[_Node]) -> tuple[int, ...]:
    decisions: list[int] = []
    for i, ((low, a), (high, b)) in enumerate(cell):
        decisions += [PAIRS[i].index((a, b)), low, high]
    return tuple(decisions)


def _canonical_cell(cell: list[_Node]) -> list[_Node]:
    """The smallest numbering in which every source precedes the nodes that read it."""
    best: tuple[tuple[int, ...], list[_Node]] | None = None
    for order in itertools.permutations(range(NODES)):  # order[i] is the old number of node i
        new = {0: 0, 1: 1, **{2 + old: 2 + i for i, old in enumerate(order)}}
        numbered = []
        for i, old in enumerate(order):
            a, b = sorted(((op, new[source]) for op, source in cell[old]), key=lambda edge: edge[1])
            if b[1] >= 2 + i:
                break
            numbered.append((a, b))
        else:
            best = min(best or (_decisions(numbered), numbered), (_decisions(numbered), numbered))
    assert best is not None  # the identity is a numbering
    return best[1]
