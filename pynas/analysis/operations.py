"""The operations of an architecture, how often it has each, and its costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from pynas.analysis.checks import Floats
from pynas.architecture import Architecture
from pynas.spaces import DARTSRNN, NASBench101, ProxylessNAS, SearchSpace, SPOSShuffleNet
from pynas.spaces.proxylessnas.space import OPERATIONS

_ENDS = ("output", "mean")  # labels of edges into a cell's output that are no operations
_SHUFFLE_BLOCKS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception_3x3")


def operations(space: SearchSpace, arch: Architecture) -> Counter[str]:
    """The number of copies of each operation in ``arch``.

    Operations are the labels of edges in a cell (of vertices in NAS-Bench-101, the activations of nodes in
    recurrent cells), including dead edges that are trained as well; the blocks in a chain of blocks; in other
    spaces the choice of each decision.
    """
    decisions = space.check(arch)
    if isinstance(space, ProxylessNAS):
        return Counter(OPERATIONS[d] for d in decisions)
    if isinstance(space, SPOSShuffleNet):
        return Counter(_SHUFFLE_BLOCKS[d] for d in decisions)
    edges = space.graph(arch)
    if isinstance(space, NASBench101):
        nodes = {(edge.target, edge.label) for edge in edges}
        return Counter(label for _, label in nodes if label not in _ENDS)
    if edges:
        return Counter(edge.label for edge in edges if edge.label and edge.label not in _ENDS)
    return Counter(f"decision {i} is {d}" for i, d in enumerate(decisions))


def operation_counts(space: SearchSpace, architectures: Sequence[Architecture]) -> dict[str, Floats]:
    """``[N]`` numbers of copies, by operation, the most frequent operation first."""
    rows = [operations(space, arch) for arch in architectures]
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name, _ in total.most_common()}


def costs(
    space: SearchSpace, architectures: Sequence[Architecture], params: Callable[[Architecture], int]
) -> dict[str, Floats]:
    """``[N]`` costs by name: parameters and, for recurrent cells, depth; leaves out costs equal for all.

    Args:
        space: Space of the architectures.
        architectures: N architectures.
        params: Number of parameters of a network; the same for all recurrent cells of ``darts_rnn``.
    """
    found = {"params": [params(arch) for arch in architectures]}
    if isinstance(space, DARTSRNN):
        found["depth"] = [_depth(space, arch) for arch in architectures]
    return {
        name: np.array(values, dtype=np.float64) for name, values in found.items() if len(set(values)) > 1
    }


def _depth(space: DARTSRNN, arch: Architecture) -> int:
    """Number of nodes on the longest path from the cell's first state."""
    depths = [0]
    for _, source in space.cell(arch):
        depths.append(depths[source] + 1)
    return max(depths)
