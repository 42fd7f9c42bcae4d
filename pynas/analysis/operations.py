"""Which operations an architecture holds, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pynas.analysis._checks import Floats
from pynas.architecture import Architecture
from pynas.spaces import NASBench101, ProxylessNAS, SearchSpace, SPOSShuffleNet
from pynas.spaces.proxylessnas import OPERATIONS

_SHUFFLE_BLOCKS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception_3x3")


def operations(space: SearchSpace, arch: Architecture) -> Counter[str]:
    """How often each operation stands in ``arch``.

    In cells these are the labels of the edges (of the nodes in NAS-Bench-101), dead ones included, since they
    are trained too; in chains of blocks the blocks; elsewhere the choice of each decision.
    """
    decisions = space.check(arch)
    if isinstance(space, ProxylessNAS):
        return Counter(OPERATIONS[d] for d in decisions)
    if isinstance(space, SPOSShuffleNet):
        return Counter(_SHUFFLE_BLOCKS[d] for d in decisions)
    edges = space.graph(arch)
    if isinstance(space, NASBench101):
        nodes = {(edge.target, edge.label) for edge in edges}
        return Counter(label for _, label in nodes if label and label != "output")
    if edges:
        return Counter(edge.label for edge in edges if edge.label)
    return Counter(f"decision {i} is {d}" for i, d in enumerate(decisions))


def operation_counts(space: SearchSpace, architectures: Sequence[Architecture]) -> dict[str, Floats]:
    """``[N]`` numbers of copies by operation, the most frequent operation first."""
    rows = [operations(space, arch) for arch in architectures]
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name, _ in total.most_common()}
