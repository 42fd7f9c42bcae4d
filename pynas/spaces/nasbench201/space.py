"""NAS-Bench-201: a cell of four nodes and six edges, five operations an edge, 15,625 architectures.

Source: X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020, arXiv:2001.00326. The same space is the topology search space (TSS) of NATS-Bench: X. Dong, L. Liu,
K. Musial, B. Gabrys, TPAMI 2021, arXiv:2009.00437.
"""

from __future__ import annotations

import itertools
import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import Edge, SearchSpace, check_positive
from pynas.spaces.nasbench201 import notations

if TYPE_CHECKING:
    from torch import nn

OPERATIONS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# (source, target), in the order of the string.
EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

NONE, SKIP, CONV_1X1, CONV_3X3, AVG_POOL = range(len(OPERATIONS))

_SIZE: Final = len(OPERATIONS) ** len(EDGES)
# Every published table has this order: the authors shuffled the lexicographic enumeration once with Python's
# generator.
_SHUFFLE_SEED: Final = 88
_TOKEN: Final = re.compile(r"([^|~+]*)(~?)([^|~+]*)")
_OFFICIAL: Final = re.compile(
    r"\|@~0\|\+\|@~0\|@~1\|\+\|@~0\|@~1\|@~2\|".replace("@", f"({'|'.join(OPERATIONS)})")
)
_DECISIONS: Final = {operation: decision for decision, operation in enumerate(OPERATIONS)}


class NASBench201(SearchSpace):
    r"""Cells ``x_t = sum_{s<t} op_{s,t}(x_s)``, ``t = 1..3``, stacked in three stages of ``num_cells``.

    Network: 3x3 convolution and batch norm; three stages of ``num_cells`` cells with 1, 2 and 4 times
    ``channels``, separated by residual blocks of stride 2; batch norm, ReLU, global average pooling, a linear
    classifier. Convolution edges are ReLU - convolution without bias - batch norm; pooling edges average over
    the pixels inside the image.

    Indices are the official ones of the NAS-Bench-201 files and of NATS-Bench's TSS.

    Two architectures are isomorphic by the authors' definition if their cells have the same expression after
    two substitutions: (1) ``none``, and any operation on a node whose only incoming edge is zero, is zero;
    (2) a skip edge is its source. There are 6,466 classes. The members of a class compute the same function
    of their weights as long as batch norms have their initial shift, but may differ in parameters, since the
    published networks keep convolutions that read zeros. :meth:`canonical` is the member with the fewest 3x3
    convolutions, then the fewest 1x1 convolutions, then the first in lexicographic order of decisions.

    Args:
        channels: Channels of the first stage, 16 in the benchmark.
        num_cells: Cells in each stage, 5 in the benchmark.
    """

    name = "nasbench201"
    subsets = ("valid",)
    summary = "cell of 4 nodes and 6 edges with 5 operations each (Dong & Yang, ICLR 2020)"

    def __init__(self, channels: int = 16, num_cells: int = 5) -> None:
        check_positive(channels=channels, num_cells=num_cells)
        self.channels = channels
        self.num_cells = num_cells

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Five operations on each of six edges, in the order of the string."""
        return (len(OPERATIONS),) * len(EDGES)

    # ---- order and identity ----------------------------------------------------------------------

    def index(self, arch: Architecture) -> int:
        """Row of ``arch`` in the official files."""
        return _official_order()[1][_rank(self.check(arch))]

    def from_index(self, index: int) -> Architecture:
        """The architecture in row ``index`` of the official files."""
        return Architecture(self.name, _digits(_official_order()[0][self._check_index(index)]))

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of the isomorphism class of ``arch``, one of 6,466."""
        return _representatives()[_rank(self.check(arch))]

    def in_subset(self, arch: Architecture, subset: str = "valid") -> bool:
        """Whether ``arch`` is among the 9,445 ``valid`` cells of NAS-Bench-Suite-Zero.

        These are the cells without an idle operation: each one except ``none`` lies on a path from the cell's
        input to its output. The cell of six ``none`` is one of them. The tables of NAS-Bench-Suite-Zero
        (A. Krishnakumar et al., NeurIPS 2022, arXiv:2210.03230) and of VKDNW (O. Tybl, L. Neumann, CVPR 2025,
        arXiv:2502.04975) are over these cells, not over all 15,625.
        """
        if subset not in self.subsets:
            return super().in_subset(arch, subset)
        decisions = self.check(arch)
        return all(live == (d != NONE) for live, d in zip(live_edges(decisions), decisions, strict=True))

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The official string, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        first, *rest = (
            f"{OPERATIONS[decision]}~{source}"
            for decision, (source, _) in zip(self.check(arch), EDGES, strict=True)
        )
        return f"|{first}|+|{rest[0]}|{rest[1]}|+|{rest[2]}|{rest[3]}|{rest[4]}|"

    def parse(self, text: str) -> Architecture:
        """Read an official string, a dictionary of edges, or ``naslib:`` and NASLib's six numbers.

        Surrounding blanks are ignored; :func:`pynas.spaces.nasbench201.notations.read` says what is read.
        """
        text = text.strip()
        official = _OFFICIAL.fullmatch(text)
        if official is not None:  # tables have thousands; what follows says what is wrong with other texts
            return Architecture(self.name, tuple(_DECISIONS[operation] for operation in official.groups()))
        edges = notations.read(text)
        if edges is not None:
            return Architecture(self.name, tuple(OPERATIONS.index(edges[edge]) for edge in EDGES))
        decisions = []
        position = 0
        for source, target in EDGES:
            opening = "|" if source == 0 and target == 1 else "+|" if source == 0 else ""
            position = self._expect(text, position, opening)
            match = _TOKEN.match(text, position)
            assert match is not None  # every part of the pattern may be empty
            operation, tilde, node = match.groups()
            if operation not in OPERATIONS:
                choices = f"an operation out of {', '.join(OPERATIONS)}"
                raise self._parse_error(text, position, len(operation), choices, OPERATIONS)
            if not tilde or node != str(source):
                start = match.start(2)
                raise self._parse_error(text, start, match.end() - start, f"'~{source}'")
            decisions.append(OPERATIONS.index(operation))
            position = self._expect(text, match.end(), "|")
        if position < len(text):
            raise self._parse_error(text, position, len(text) - position, "the end of the text")
        return Architecture(self.name, tuple(decisions))

    def _expect(self, text: str, position: int, literal: str) -> int:
        """Return the position after ``literal``, which must be at ``position``."""
        for character in literal:
            if text[position : position + 1] != character:
                expected = literal[literal.index(character) :]
                raise self._parse_error(text, position, min(1, len(text) - position), repr(expected))
            position += 1
        return position

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The six edges of the cell, from the input node 0 to the output node 3."""
        decisions = self.check(arch)
        return tuple(Edge(s, t, OPERATIONS[d]) for (s, t), d in zip(EDGES, decisions, strict=True))

    # ---- the network -----------------------------------------------------------------------------

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        """Parameters: ``sum over stages of N (n3 (9 C^2 + 2 C) + n1 (C^2 + 2 C))`` plus the fixed skeleton.

        ``n3`` and ``n1`` count the 3x3 and 1x1 convolution edges; ``C`` are the channels of the stage, ``N``
        its cells. 73,306 to 1,531,546 in all for 10 classes.
        """
        decisions = self.check(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        n1, n3 = decisions.count(CONV_1X1), decisions.count(CONV_3X3)
        c = self.channels
        total = 9 * in_channels * c + 2 * c  # stem
        for width in (c, 2 * c, 4 * c):
            total += self.num_cells * (n3 * (9 * width**2 + 2 * width) + n1 * (width**2 + 2 * width))
        # Residual blocks: 3x3 from half the width, 3x3, 1x1 shortcut, two batch norms.
        for width in (2 * c, 4 * c):
            total += 9 * width * width // 2 + 9 * width**2 + width * width // 2 + 4 * width
        return total + 2 * (4 * c) + (4 * c + 1) * num_classes

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """Multiply-adds of convolutions and classifier for one ``image_size`` x ``image_size`` image.

        The FLOPs of the official files count the classifier's biases too: :meth:`published_flops`. The image
        size must be a multiple of 4, since it is halved twice.
        """
        decisions = self.check(arch)
        check_positive(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        if image_size % 4:
            raise UserError(
                f"image_size: expected a multiple of 4 (the image is halved twice), got {image_size}"
            )
        n1, n3 = decisions.count(CONV_1X1), decisions.count(CONV_3X3)
        c, pixels = self.channels, image_size**2
        total = 9 * in_channels * c * pixels
        # From stage to stage channels double and pixels drop to a quarter, so cells cost the same in all
        # stages, and so do residual blocks.
        total += 3 * self.num_cells * (9 * n3 + n1) * c**2 * pixels
        total += 2 * (9 * 2 * c**2 + 9 * 4 * c**2 + 2 * c**2) * pixels // 4
        return total + 4 * c * num_classes

    def published_flops(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        """FLOPs as the files of NAS-Bench-201 and NATS-Bench count them: ``macs + num_classes``.

        Their authors' counter (AutoDL-Projects, ``flop_benchmark.py``) adds one operation for each bias of
        the classifier; convolutions have none. 7,783,050 to 220,119,690 for 10 classes.
        """
        return self.macs(arch, num_classes, image_size, in_channels) + num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        """Build the network; parameter names are those of the authors' code, so their weights load.

        ``prune=True`` leaves out every edge that lies on no path without ``none`` from the cell's input to
        its output. The remaining modules keep their names: load the whole network's weights with
        ``strict=False``. With equal weights, outputs and remaining gradients are those of the whole network
        as long as the batch-norm shifts of convolutions that read zeros are zero, as at initialisation, since
        such a convolution outputs its shift. For the same reason these shifts have a gradient in the whole
        network, whereas the gradient of every other left-out parameter is zero.
        """
        from pynas.spaces.nasbench201.network import NASBench201Network

        decisions = self.check(arch)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        return NASBench201Network(
            decisions,
            channels=self.channels,
            num_cells=self.num_cells,
            num_classes=num_classes,
            in_channels=in_channels,
            prune=prune,
        )


def live_edges(decisions: tuple[int, ...]) -> tuple[bool, ...]:
    """For each edge, whether it lies on a path without ``none`` from the cell's input to its output."""
    fed = {0}
    for (source, target), decision in zip(EDGES, decisions, strict=True):
        if decision != NONE and source in fed:  # EDGES are sorted by target, so `source` is complete
            fed.add(target)
    used = {3}
    for (source, target), decision in reversed(list(zip(EDGES, decisions, strict=True))):
        if decision != NONE and target in used:
            used.add(source)
    return tuple(
        decision != NONE and source in fed and target in used
        for (source, target), decision in zip(EDGES, decisions, strict=True)
    )


def _rank(decisions: tuple[int, ...]) -> int:
    """Position in lexicographic order."""
    a, b, c, d, e, f = decisions
    return ((((a * 5 + b) * 5 + c) * 5 + d) * 5 + e) * 5 + f


def _digits(rank: int) -> tuple[int, ...]:
    """Inverse of :func:`_rank`."""
    digits = []
    for _ in EDGES:
        rank, digit = divmod(rank, 5)
        digits.append(digit)
    return tuple(reversed(digits))


@lru_cache(maxsize=1)
def _official_order() -> tuple[list[int], list[int]]:
    """Lexicographic rank of every official index, and official index of every lexicographic rank."""
    ranks = list(range(_SIZE))
    random.Random(_SHUFFLE_SEED).shuffle(ranks)
    indices = [0] * _SIZE
    for index, rank in enumerate(ranks):
        indices[rank] = index
    return ranks, indices


def _terms(node: str) -> list[str]:
    """The expression of each operation on a node; ``#`` is zero."""
    if node == "#":
        return ["#"] * len(OPERATIONS)
    return ["#", node, *(f"({node})@{operation}" for operation in OPERATIONS[SKIP + 1 :])]


@lru_cache(maxsize=1)
def _representatives() -> list[Architecture]:
    """The canonical architecture of every lexicographic rank, computed once in tens of milliseconds.

    The key of a class is the expression of the output node: the expression of node t joins the sorted terms
    of its incoming edges by ``+``. It must be this string and not a nested tuple: a skip of a sum has no
    parentheses and joins the sum around it, which is how the authors arrive at 6,466.
    """
    keys = []
    choices = range(len(OPERATIONS))
    from_input = _terms("0")
    for first in choices:
        node_1 = from_input[first]
        from_1 = _terms(node_1)
        for second, third in itertools.product(choices, repeat=2):
            from_2 = _terms("+".join(sorted((from_input[second], from_1[third]))))
            keys += ["+".join(sorted(terms)) for terms in itertools.product(from_input, from_1, from_2)]
    chosen: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for key, decisions in zip(keys, itertools.product(choices, repeat=len(EDGES)), strict=True):
        candidate = (decisions.count(CONV_3X3), decisions.count(CONV_1X1), decisions)
        best = chosen.get(key)
        if best is None or candidate < best:
            chosen[key] = candidate
    members = {key: Architecture(NASBench201.name, decisions) for key, (_, _, decisions) in chosen.items()}
    return [members[key] for key in keys]
