"""The compiled core of NAS-Bench-101 against the definitions, written out in Python."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from pynas import _C

PUBLISHED_WIDTHS = [(128, 128, 3), (128, 256, 1), (256, 256, 2), (256, 512, 1), (512, 512, 2)]
OUTPUT = 6

# Adjacency by source, and labels: (edges, operations of the vertices between).
Graph = tuple[list[list[int]], list[int]]


def graph_of(code: int) -> Graph:
    """The unpruned cell of a code."""
    edges = [[0] * 7 for _ in range(7)]
    for t in range(7):
        for s in range(t):
            edges[s][t] = code >> 10 + s + t * (t - 1) // 2 & 1
    return edges, [code >> 2 * (5 - v) & 3 for v in range(1, 6)]


def code_of(graph: Graph) -> int:
    edges, operations = graph
    vertices = len(edges)
    code = 0
    for t in range(vertices):
        place = OUTPUT if t == vertices - 1 else t
        for s in range(t):
            code |= edges[s][t] << 10 + s + place * (place - 1) // 2
    for v, operation in enumerate(operations, start=1):
        code |= operation << 2 * (5 - v)
    return code


def pruned(graph: Graph) -> Graph | None:
    """The vertices on paths from the first to the last, by listing all paths."""
    edges, operations = graph
    last = len(edges) - 1

    def paths(v: int) -> list[list[int]]:
        if v == last:
            return [[v]]
        return [[v, *rest] for t in range(v + 1, last + 1) if edges[v][t] for rest in paths(t)]

    kept = sorted({v for path in paths(0) for v in path})
    if not kept:
        return None
    return [[edges[s][t] for t in kept] for s in kept], [operations[v - 1] for v in kept[1:-1]]


def module_hash(graph: Graph) -> str:
    edges, operations = graph
    vertices = range(len(edges))
    sources = [[s for s in vertices if edges[s][v]] for v in vertices]
    targets = [[t for t in vertices if edges[v][t]] for v in vertices]
    labels = [-1, *operations, -2]

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    names = [md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in vertices]
    for _ in vertices:
        joined = [[sorted(names[w] for w in near[v]) for near in (sources, targets)] for v in vertices]
        names = [md5(f"{''.join(joined[v][0])}|{''.join(joined[v][1])}|{names[v]}") for v in vertices]
    return md5(str(sorted(names)))


def orders(graph: Graph) -> list[Graph]:
    """The cell with its vertices listed in every order in which all edges point forward."""
    edges, operations = graph
    last = len(edges) - 1
    found = []
    for middle in itertools.permutations(range(1, last)):
        order = [0, *middle, last]
        moved = [[edges[s][t] for t in order] for s in order]
        if not any(moved[s][t] for s in range(last + 1) for t in range(s + 1)):
            found.append((moved, [operations[v - 1] for v in middle]))
    return found


def channels(graph: Graph, width_in: int, width_out: int) -> list[int]:
    edges, _ = graph
    last = len(edges) - 1
    joined = [v for v in range(1, last) if edges[v][last]]
    widths = [width_in, *[0] * (last - 1), width_out]
    for i, v in enumerate(joined):
        widths[v] = width_out // len(joined) + (i < width_out % len(joined))
    for v in reversed(range(1, last)):
        if v not in joined:
            widths[v] = max(widths[t] for t in range(v + 1, last) if edges[v][t])
    return widths


def cost(graph: Graph, width_in: int, width_out: int) -> tuple[int, int]:
    edges, operations = graph
    widths = channels(graph, width_in, width_out)
    convolutions = [(width_in, width, 1) for v, width in enumerate(widths) if edges[0][v]]
    for width, operation in zip(widths[1:-1], operations, strict=True):
        convolutions += [(width, width, (9, 1)[operation])] if operation < 2 else []
    return sum(a * b * k for a, b, k in convolutions), sum(b for _, b, _ in convolutions)


def parameters(graph: Graph, widths: list[tuple[int, int, int]]) -> int:
    costs = [(n, *cost(graph, a, b)) for a, b, n in widths]
    return sum(n * (weights + 2 * normed) for n, weights, normed in costs)


def random_codes(count: int) -> list[int]:
    """Cells of few and of many edges, with paths and without."""
    rng = random.Random(0)
    codes = []
    for _ in range(count):
        density = rng.uniform(0.1, 0.7)
        edges = sum((rng.random() < density) << bit for bit in range(21))
        operations = sum(rng.randrange(3) << 2 * v for v in range(5))
        codes.append(edges << 10 | operations)
    return codes


CODES = random_codes(1500)
VALID = [code for code in CODES if _C.nasbench101_is_valid(code)]


@pytest.mark.every_isa
def test_md5_of_every_length() -> None:
    rng = random.Random(0)
    messages = [rng.randbytes(length) for length in [*range(270), *range(130)]]
    assert _C.md5(messages) == [hashlib.md5(message).digest() for message in messages]
    assert _C.md5([]) == []


@pytest.mark.every_isa
def test_hashes_are_known() -> None:
    """Of a hundred cells, as one digest that every instruction set has to give."""
    found = _C.nasbench101_hash(np.array(VALID[:100], dtype=np.uint32)).tobytes()
    assert hashlib.md5(found).hexdigest() == "e767abe03ad0abb6184dd35d8a905bf8"


def test_pruning_and_validity() -> None:
    kinds = Counter[str]()
    for code in CODES:
        graph = pruned(graph_of(code))
        if graph is None:
            assert not _C.nasbench101_is_valid(code)
            with pytest.raises(ValueError, match="does not reach"):
                _C.nasbench101_prune(code)
            kinds["no path"] += 1
            continue
        edges = sum(map(sum, graph[0]))
        assert _C.nasbench101_prune(code) == code_of(graph)
        assert _C.nasbench101_is_valid(code) == (edges <= 9)
        kinds["valid" if edges <= 9 else "too many edges"] += 1
        kinds["shrunk"] += len(graph[0]) < 7
    assert min(kinds[kind] for kind in ("no path", "valid", "too many edges", "shrunk")) > 100, kinds


def test_module_hash() -> None:
    digests = _C.nasbench101_hash(np.array(CODES, dtype=np.uint32))
    assert digests.shape == (len(CODES), 16)
    for code, digest in zip(CODES, digests, strict=True):
        graph = pruned(graph_of(code))
        assert digest.tobytes().hex() == (module_hash(graph) if graph is not None else "0" * 32)
    assert _C.nasbench101_hash(np.array([], dtype=np.uint32)).shape == (0, 16)


@pytest.mark.parametrize(("width_in", "width_out"), [(128, 128), (128, 256), (7, 5), (4, 4), (3, 6)])
def test_channels_and_cost(width_in: int, width_out: int) -> None:
    for code in VALID:
        graph = pruned(graph_of(code))
        assert graph is not None
        assert _C.nasbench101_channels(code, width_in, width_out) == channels(graph, width_in, width_out)
        assert _C.nasbench101_cost(code, width_in, width_out) == cost(graph, width_in, width_out)


@pytest.mark.parametrize("widths", [PUBLISHED_WIDTHS, [(8, 4, 1), (5, 10, 2)], []])
def test_canonical_order(widths: list[tuple[int, int, int]]) -> None:
    moved = 0
    for code in VALID[:200]:
        graph = pruned(graph_of(code))
        assert graph is not None
        candidates = orders(graph)
        forms = {_C.nasbench101_canonical(code_of(other), widths) for other in candidates}
        (form,) = forms
        assert form == min((parameters(other, widths), code_of(other)) for other in candidates)[1]
        assert _C.nasbench101_canonical(code, widths) == form
        moved += form != code_of(graph)
    assert moved > 20


@pytest.mark.slow
def test_enumeration() -> None:
    """423,624 cells, by vertices what the authors count, and no two with one hash."""
    codes = _C.nasbench101_unique(PUBLISHED_WIDTHS)
    assert (np.diff(codes.astype(np.int64)) > 0).all()
    edges = [[codes >> 10 + s + t * (t - 1) // 2 & 1 for s in range(t)] for t in range(7)]
    vertices = 2 + sum(np.any(edges[t], axis=0).astype(int) for t in range(1, 6))
    sizes = dict(zip(*(array.tolist() for array in np.unique(vertices, return_counts=True)), strict=True))
    assert sizes == {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62_010, 7: 359_082}
    digests = _C.nasbench101_hash(codes).view("V16")
    assert len(np.unique(digests)) == len(codes) == 423_624
    some = codes[:: len(codes) // 500].tolist()
    assert [_C.nasbench101_canonical(code, PUBLISHED_WIDTHS) for code in some] == some


@pytest.mark.parametrize("widths", [[], [(4, 6, 1)], [(8, 7, 3), (7, 10, 1)]])
def test_enumeration_is_of_canonical_codes(widths: list[tuple[int, int, int]]) -> None:
    codes = set(_C.nasbench101_unique(widths).tolist())
    assert len(codes) == 423_624
    assert all(_C.nasbench101_canonical(code, widths) in codes for code in VALID)


def test_valid_edges() -> None:
    edges = _C.nasbench101_valid_edges()
    assert len(edges) == 1_538_083
    assert (np.diff(edges.astype(np.int64)) > 0).all()
    listed = set(edges[:: len(edges) // 500].tolist())
    assert all(_C.nasbench101_is_valid(mask << 10) for mask in listed)
    members = np.isin([code >> 10 for code in CODES], edges)
    assert members.tolist() == [_C.nasbench101_is_valid(code) for code in CODES]


@pytest.mark.slow
def test_the_core_serves_without_torch_and_with_torch_afterwards() -> None:
    """Sampling loads the compiled core but not torch; the operators in it still find torch later."""
    if "PYNAS_EXTENSION" in os.environ:
        pytest.skip("takes the installed core")
    script = (
        "import random, sys, pynas; s = pynas.spaces.get('nasbench101'); s.hash(s.sample(random.Random(0))); "
        "assert 'pynas._C' in sys.modules; assert 'torch' not in sys.modules; "
        "import torch, pynas.ops; pynas.ops.avg_pool2d(torch.rand(1, 1, 4, 4), 2)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
