"""Cells of NAS-Bench-101 as decisions, as codes of the compiled core, and as the benchmark's matrices."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pynas._errors import UserError

# The benchmark's names and, by position, its labels.
OPERATIONS: Final = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
INPUT, OUTPUT, PADDING = -1, -2, -3
MAX_VERTICES, MAX_EDGES = 7, 9
INTERIOR: Final = MAX_VERTICES - 2
# (source, target), in the order of the decisions.
EDGES: Final = tuple((source, target) for target in range(MAX_VERTICES) for source in range(target))

_LABELS: Final = {"input": INPUT, "output": OUTPUT, **{name: i for i, name in enumerate(OPERATIONS)}}
# From the highest bit: two bits for each operation, vertex 1 first; one bit for each edge, the last first
# (csrc/spaces/nasbench101/cell.h).
EDGE_SHIFT: Final = 2 * INTERIOR
_EDGE_SHIFTS: Final = tuple(EDGE_SHIFT + i for i in range(len(EDGES)))
_OPERATION_SHIFTS: Final = tuple(2 * (INTERIOR - 1 - i) for i in range(INTERIOR))

Matrix = tuple[tuple[int, ...], ...]


def to_code(decisions: Sequence[int]) -> int:
    """The code of a cell's decisions."""
    code = 0
    for bit, shift in zip(decisions, _EDGE_SHIFTS, strict=False):
        code |= bit << shift
    for operation, shift in zip(decisions[len(EDGES) :], _OPERATION_SHIFTS, strict=True):
        code |= operation << shift
    return code


def from_codes(codes: NDArray[np.uint32]) -> list[list[int]]:
    """The decisions of each code."""
    bits = codes[:, None] >> np.array(_EDGE_SHIFTS, dtype=np.uint32) & np.uint32(1)
    operations = codes[:, None] >> np.array(_OPERATION_SHIFTS, dtype=np.uint32) & np.uint32(3)
    decisions: list[list[int]] = np.concatenate([bits, operations], axis=1).tolist()
    return decisions


@lru_cache(maxsize=1)
def valid_edges() -> NDArray[np.uint32]:
    """The edge bits of every valid cell as a number, ascending; 6 MB, computed once in 0.1 s."""
    import pynas._C as _C

    return _C.nasbench101_valid_edges()


@lru_cache(maxsize=4)
def unique_codes(widths: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint32]:
    """The code of every cell, with the vertex order that has the fewest parameters at ``widths``."""
    import pynas._C as _C

    return _C.nasbench101_unique(list(widths))


def to_matrix(decisions: Sequence[int]) -> tuple[Matrix, tuple[str, ...]]:
    """Adjacency matrix and operations of a pruned cell."""
    bits = dict(zip(EDGES, decisions, strict=False))
    output = MAX_VERTICES - 1
    # A pruned cell has its vertices first; one without an edge from an earlier vertex does not exist.
    kept = [0, *(t for t in range(1, output) if any(bits[s, t] for s in range(t))), output]
    rows = tuple(tuple(bits.get((s, t), 0) for t in kept) for s in kept)
    operations = (OPERATIONS[decisions[len(EDGES) + t - 1]] for t in kept[1:-1])
    return rows, ("input", *operations, "output")


def spread(decisions: Sequence[int], rng: random.Random) -> tuple[int, ...]:
    """A pruned cell with its inner vertices moved to random positions, if it has fewer than 7 vertices."""
    rows, _ = to_matrix(decisions)
    vertices = len(rows)
    interior = sorted(rng.sample(range(1, MAX_VERTICES - 1), vertices - 2))
    places = [0, *interior, MAX_VERTICES - 1]
    bits = {(places[s], places[t]): rows[s][t] for t in range(vertices) for s in range(t)}
    operations = dict(zip(interior, decisions[len(EDGES) :], strict=False))
    return (*(bits.get(edge, 0) for edge in EDGES), *(operations.get(v, 0) for v in range(1, INTERIOR + 1)))


def from_matrix(
    adjacency: Sequence[Sequence[int]] | NDArray[np.integer], ops: Sequence[str | int]
) -> tuple[int, ...]:
    """The decisions of a cell as the benchmark writes it; see :meth:`NASBench101.from_matrix`."""
    labels = [_label(i, op) for i, op in enumerate(ops)]
    expected = f"adjacency: expected a row and a column for each of {len(labels)} ops"
    try:
        matrix = np.asarray(adjacency)
    except ValueError:
        raise UserError(f"{expected}, got rows of different lengths") from None
    if matrix.shape != (len(labels), len(labels)):
        raise UserError(f"{expected}, got shape {list(matrix.shape)}")
    padding = labels.count(PADDING)
    vertices = len(labels) - padding
    if not 2 <= vertices <= MAX_VERTICES:
        raise UserError(f"ops: expected 2 to {MAX_VERTICES} vertices, got {vertices:,}")
    interior = labels[1 : vertices - 1]
    if labels != [INPUT, *interior, OUTPUT, *[PADDING] * padding] or min(interior, default=0) < 0:
        expected = f"'input', operations out of {', '.join(OPERATIONS)}, 'output'"
        raise UserError(f"ops: expected {expected}, got {list(ops)}")
    rows: list[list[int]] = matrix.tolist()
    for source, row in enumerate(rows):
        for target, bit in enumerate(row):
            if bit not in ((0, 1) if source < target < vertices else (0,)):
                expected = "0 and 1, and 1 only above the diagonal (the row is the source), not in padding"
                raise UserError(f"adjacency: expected {expected}, got {bit} in row {source}, column {target}")
    decisions = [int(rows[s][t]) for t in range(vertices - 1) for s in range(t)]
    # The output is always the last of the seven vertices.
    decisions += [0] * (len(EDGES) - (MAX_VERTICES - 1) - len(decisions))
    decisions += [int(rows[s][vertices - 1]) for s in range(vertices - 1)]
    decisions += [0] * (len(EDGES) - len(decisions))
    return (*decisions, *interior, *[0] * (INTERIOR - len(interior)))


def _label(position: int, op: str | int) -> int:
    """The benchmark's label of an operation, which is given by name or label."""
    if isinstance(op, str):
        if op in _LABELS:
            return _LABELS[op]
        raise UserError(f"ops: expected one of {', '.join(_LABELS)} at position {position}, got {op!r}")
    label = int(op)
    if label != op or not PADDING <= label < len(OPERATIONS):
        allowed = f"{PADDING}..{len(OPERATIONS) - 1}"
        raise UserError(f"ops: expected a label in {allowed} at position {position}, got {op}")
    return label
