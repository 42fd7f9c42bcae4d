"""TransNAS-Bench-101, micro: four operations on each of the six edges of a cell, 4,096 architectures.

Source: Y. Duan et al., "TransNAS-Bench-101", CVPR 2021, arXiv:2105.11871.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pynas.architecture import Architecture
from pynas.spaces.base import Edge
from pynas.spaces.nasbench201.space import CONV_1X1, CONV_3X3, EDGES, NONE, SKIP, live_edges
from pynas.spaces.transnas.space import Block, TransNASSpace

if TYPE_CHECKING:
    from pynas.spaces.transnas.network import BlockFactory

OPERATIONS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
MODULES: Final = "41414"

_INPUT: Final = -1  # in a structure, the cell's input
# A cell without dead edges: (operation, sources) of every part that computes something, and the sources of
# the output; the order of interchangeable parts does not matter.
_Structure = tuple[tuple[tuple[int, tuple[int, ...]], ...], tuple[int, ...]]


class TransNASMicro(TransNASSpace):
    """Cells ``x_t = sum_{s<t} op_{s,t}(x_s)``, ``t = 1..3``, in five modules of two cells each.

    The modules are 4, 1, 4, 1, 4: the first, third and fifth double the channels and halve the resolution, by
    the edges from the input of their first cell. A skip connection there is a factorised reduction; elsewhere
    it is the identity. Convolution edges are ReLU - convolution without bias - batch norm.

    Two architectures are the same network here if their cells are the same graph after (1) edges that are
    ``none`` or read only zeros are removed and (2) skip connections between inner nodes are replaced by their
    source. One convolution that two nodes read is not the same as two convolutions. As in
    :class:`NASBench201`, a convolution that reads zeros outputs the shift of its batch norm, which is zero
    only at initialisation. :meth:`canonical` is the member with the fewest convolutions, then the most
    ``none``, then the first in lexicographic order; 1,376 architectures are canonical.

    Indices are the decisions read as digits, not those of the published file.
    """

    name = "transnas_micro"
    summary = "cell of 4 nodes and 6 edges with 4 operations each, seven tasks (Duan et al., CVPR 2021)"

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Four operations on each of six edges, in the order of the string."""
        return (len(OPERATIONS),) * len(EDGES)

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of all architectures that are the same network."""
        return Architecture(self.name, _representatives()[self.check(arch)])

    # ---- notation --------------------------------------------------------------------------------

    def format(self, arch: Architecture) -> str:
        """The official string, ``64-41414-3_02_333``: channels, modules, operations by target node."""
        a, b, c, d, e, f = self.check(arch)
        return f"{self.channels}-{MODULES}-{a}_{b}{c}_{d}{e}{f}"

    def parse(self, text: str) -> Architecture:
        """Read an official string; surrounding blanks are ignored."""
        text = text.strip()
        head = f"{self.channels}-{MODULES}-"
        if not text.startswith(head):
            length = next((i for i, (x, y) in enumerate(zip(text, head, strict=False)) if x != y), len(text))
            raise self._parse_error(text, length, min(1, len(text) - length), repr(head[length:]))
        decisions: list[int] = []
        position = len(head)
        for place in "0_00_000":
            character = text[position : position + 1]
            if place == "_" and character != "_":
                raise self._parse_error(text, position, len(character), "'_'")
            if place == "0":
                if character not in tuple("0123"):
                    operations = ", ".join(f"{i} {name}" for i, name in enumerate(OPERATIONS))
                    raise self._parse_error(
                        text, position, len(character), f"an operation out of {operations}"
                    )
                decisions.append(int(character))
            position += 1
        if position < len(text):
            raise self._parse_error(text, position, len(text) - position, "the end of the text")
        return Architecture(self.name, tuple(decisions))

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        """The six edges of the cell, from the input node 0 to the output node 3."""
        decisions = self.check(arch)
        return tuple(Edge(s, t, OPERATIONS[d]) for (s, t), d in zip(EDGES, decisions, strict=True))

    # ---- the network -----------------------------------------------------------------------------

    def modules(self, arch: Architecture) -> str:
        """``41414``."""
        self.check(arch)
        return MODULES

    def _block_cost(self, decisions: tuple[int, ...], block: Block) -> tuple[int, int]:
        weights = normalised = 0
        for decision, (source, _) in zip(decisions, EDGES, strict=True):
            a = block.in_channels if source == 0 else block.out_channels
            b = block.out_channels
            reduces = source == 0 and block != Block(b, b, 1)
            if decision == CONV_3X3:
                weights += 9 * a * b
            elif decision == CONV_1X1 or (decision == SKIP and reduces):
                weights += a * b
            else:
                continue
            normalised += b
        return weights, normalised

    def _block_factory(self, decisions: tuple[int, ...], prune: bool) -> BlockFactory:
        from pynas.spaces.transnas.network import MicroCell

        return lambda block: MicroCell(decisions, block, prune)


def _parts(decisions: tuple[int, ...]) -> tuple[dict[int, tuple[int, tuple[int, ...]]], tuple[int, ...]]:
    """Live parts by edge, each (operation, parts whose sum it reads), and the parts that the output sums.

    A skip connection from the input is a part, since it is a factorised reduction in some cells.
    """
    live = live_edges(decisions)
    values: dict[int, tuple[int, ...]] = {0: (_INPUT,), 1: (), 2: (), 3: ()}
    parts: dict[int, tuple[int, tuple[int, ...]]] = {}
    for i, (source, target) in enumerate(EDGES):
        if not live[i]:
            continue
        if decisions[i] == SKIP and source != 0:
            values[target] += values[source]
        else:
            parts[i] = (decisions[i], values[source])
            values[target] += (i,)
    return parts, values[3]


def _structure(decisions: tuple[int, ...]) -> _Structure:
    """The graph of the live parts in a normal form: equal for two cells if and only if the graphs are."""
    parts, output = _parts(decisions)
    terms = {_INPUT: "x"}
    for i, (operation, sources) in parts.items():  # sources come first
        terms[i] = f"{operation}({'+'.join(sorted(terms[s] for s in sources))})"
    groups: dict[str, list[int]] = {}
    for i in sorted(parts, key=lambda i: terms[i]):
        groups.setdefault(terms[i], []).append(i)
    best: _Structure | None = None
    # Only parts with equal terms are interchangeable: there are few of them.
    for orders in itertools.product(*(itertools.permutations(group) for group in groups.values())):
        order = list(itertools.chain(*orders))
        number = {part: position for position, part in enumerate(order)} | {_INPUT: _INPUT}
        candidate = (
            tuple((parts[i][0], tuple(sorted(number[s] for s in parts[i][1]))) for i in order),
            tuple(sorted(number[s] for s in output)),
        )
        if best is None or candidate < best:
            best = candidate
    assert best is not None  # the product of no groups has one element
    return best


@lru_cache(maxsize=1)
def _representatives() -> dict[tuple[int, ...], tuple[int, ...]]:
    """The canonical decisions of all decisions, computed once in a fraction of a second."""
    structures = {
        decisions: _structure(decisions)
        for decisions in itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    }
    chosen: dict[_Structure, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for decisions, structure in structures.items():
        reductions = sum(d == SKIP and source == 0 for d, (source, _) in zip(decisions, EDGES, strict=True))
        weight = (decisions.count(CONV_3X3), decisions.count(CONV_1X1), reductions, -decisions.count(NONE))
        chosen[structure] = min(chosen.get(structure, (weight, decisions)), (weight, decisions))
    return {decisions: chosen[structure][1] for decisions, structure in structures.items()}
