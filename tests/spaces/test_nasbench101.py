"""NAS-Bench-101 against the published cells, and its networks against the definition written out."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import Edge, NASBench101
from pynas.spaces.nasbench101.cell import unique_codes
from pynas.spaces.nasbench101.space import EDGES, NUM_CELLS, OPERATIONS

SPACE = NASBench101()
SMALL = NASBench101(channels=8, num_stacks=2, num_cells=2)
# One of each: no vertex between, truncation at a vertex and at the output, a dead vertex, seven vertices.
CELLS = (
    "output:0",
    "conv3x3:0+output:0,1",
    "conv3x3:0+conv1x1:0+maxpool3x3:1,2+output:1,2,3",
    "conv1x1:0+conv3x3:1+maxpool3x3:1+conv3x3:0,2+output:2,3,4",
    "maxpool3x3:0+conv3x3:1+conv1x1:+conv1x1:2,3+conv3x3:0+output:0,2,5",
    "conv3x3:0+maxpool3x3:0+conv1x1:0,1+conv3x3:2+conv3x3:3+output:4,5",
)


@pytest.fixture(scope="module")
def table(shared_data: Path) -> dict[str, Any]:
    path = shared_data / "nb101_sample15k.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def published(table: dict[str, Any]) -> list[Architecture]:
    rows = zip(table["adjacency"], table["ops"].tolist(), strict=True)
    return [SPACE.from_matrix(adjacency, ops) for adjacency, ops in rows]


def test_published_hashes(table: dict[str, Any], published: list[Architecture]) -> None:
    assert SPACE.hashes(published) == [name.decode() for name in table["hash"].tolist()]


def test_published_parameters(table: dict[str, Any], published: list[Architecture]) -> None:
    assert [SPACE.params(arch) for arch in published] == table["trainable_parameters"].tolist()


@pytest.mark.slow
def test_published_matrices(table: dict[str, Any], published: list[Architecture]) -> None:
    for arch, vertices, adjacency, labels in zip(
        published, table["num_vertices"].tolist(), table["adjacency"], table["ops"].tolist(), strict=True
    ):
        matrix, ops = SPACE.matrix(arch)
        assert np.array_equal(matrix, adjacency[:vertices, :vertices])
        assert ops == ("input", *(OPERATIONS[label] for label in labels[1 : vertices - 1]), "output")


def test_published_cells_are_canonical_up_to_their_order(published: list[Architecture]) -> None:
    some = published[::10]
    forms = [SPACE.canonical(arch) for arch in some]
    assert SPACE.hashes(forms) == SPACE.hashes(some)
    fewer = sum(SPACE.params(form) < SPACE.params(arch) for form, arch in zip(forms, some, strict=True))
    same = sum(form == arch for form, arch in zip(forms, some, strict=True))
    assert fewer > 20
    assert same > 0.8 * len(some)


def test_size_and_indices() -> None:
    assert SPACE.size == 373_754_169
    assert SPACE.format(SPACE.from_index(0)) == "output:0"
    assert SPACE.index(SPACE.parse("conv1x1:+output:0")) == 81
    rng = random.Random(0)
    ranks = sorted(rng.randrange(SPACE.size) for _ in range(300))
    keys = [key(SPACE.from_index(rank)) for rank in ranks]
    assert keys == sorted(keys)


def key(arch: Architecture) -> tuple[int, ...]:
    bits = arch.decisions[: len(EDGES)]
    return (*reversed(bits), *arch.decisions[len(EDGES) :])


@pytest.mark.slow
def test_unique_cells() -> None:
    archs = list(itertools.islice(SPACE.unique(), 20_000))
    assert [key(arch) for arch in archs] == sorted(key(arch) for arch in archs)
    assert len(set(SPACE.hashes(archs))) == len(archs)
    assert all(SPACE.canonical(arch) == arch == SPACE.pruned(arch) for arch in archs[::40])
    assert len(unique_codes(tuple(SPACE._widths()))) == NUM_CELLS == 423_624


def test_samples_are_uniform_over_cells() -> None:
    rng = random.Random(0)
    archs = [SPACE.sample(rng) for _ in range(600)]
    assert len(set(SPACE.hashes(archs))) > 595
    sizes = [len(SPACE.matrix(arch)[1]) for arch in archs]
    assert 0.8 < sizes.count(7) / len(sizes) < 0.9  # 359,082 of 423,624
    assert 0.1 < sizes.count(6) / len(sizes) < 0.2  # 62,010
    # The order of the vertices is the canonical one, their places are not.
    assert all(SPACE.pruned(arch) == SPACE.canonical(arch) for arch in archs)
    first = [arch.decisions[0] for arch, size in zip(archs, sizes, strict=True) if size == 6]
    assert 0 < sum(first) < len(first)


def test_what_lies_on_no_path_does_not_matter() -> None:
    dead = SPACE.parse("conv3x3:0+conv1x1:0+maxpool3x3:+conv3x3:3+output:0,1,4")
    alive = SPACE.parse("conv3x3:0+output:0,1")
    assert dead != alive
    assert SPACE.pruned(dead) == SPACE.canonical(dead) == alive
    for describe in (SPACE.hash, SPACE.matrix, SPACE.params, SPACE.macs, SPACE.graph):
        assert describe(dead) == describe(alive)
        assert describe(dead) != describe(SPACE.parse("conv3x3:0+output:1"))


def test_ten_edges_on_paths_are_too_many() -> None:
    ten = "conv3x3:0+conv3x3:0,1+conv3x3:0,1,2+conv3x3:0,1,3+output:4"
    with pytest.raises(
        UserError, match=r"expected at most 9 edges on paths from input to output, got 10: conv"
    ):
        SPACE.parse(ten)
    assert SPACE.parse(ten.replace("0,1,3", "0,3")).decisions.count(1) >= 9
    # The tenth edge ends at a vertex that nothing reads.
    assert SPACE.hash(SPACE.parse("conv3x3:0+conv3x3:0,1+conv3x3:0,1,2+conv3x3:0,1,2,3+output:3"))
    with pytest.raises(UserError, match="there is no path from its input to its output: conv3x3:0"):
        SPACE.parse("conv3x3:0+conv3x3:+output:2")


@pytest.mark.parametrize(
    ("text", "decisions"),
    [
        ("output:0", {(0, 6): 1}),
        ("conv3x3:+output:0", {(0, 6): 1}),
        (
            "maxpool3x3:0+conv1x1:0,1+output:0,2",
            {(0, 1): 1, (0, 2): 1, (1, 2): 1, (0, 6): 1, (2, 6): 1, 1: 2, 2: 1},
        ),
    ],
)
def test_notation(text: str, decisions: dict[Any, int]) -> None:
    arch = SPACE.parse(text)
    assert arch.decisions == tuple(decisions.get(place, 0) for place in (*EDGES, 1, 2, 3, 4, 5))
    assert SPACE.format(arch) == text.replace("conv3x3:+output", "output")


@pytest.mark.parametrize(
    ("text", "position", "width", "message"),
    [
        (
            "conv3x4:0+output:1",
            0,
            7,
            "one of conv3x3, conv1x1, maxpool3x3, output, found 'conv3x4' (did you mean",
        ),
        ("conv3x3+output:1", 7, 1, "expected ':', found '+'"),
        ("conv3x3:1+output:1", 8, 1, "expected a vertex in 0..0, found '1'"),
        ("conv3x3:0+conv1x1:1,0+output:2", 20, 1, "expected no further vertex, found '0'"),
        ("conv3x3:0+conv1x1:0,+output:2", 20, 1, "expected a vertex in 1..1, found nothing"),
        ("conv3x3:0", 9, 1, "expected '+', found the end of the text"),
        ("conv3x3:0+", 10, 1, "found the end of the text"),
        ("output:0+conv3x3:0", 8, 10, "expected the end of the text, found '+conv3x3:0'"),
        ("+".join(["conv3x3:0"] * 6), 50, 7, "expected output, found 'conv3x3'"),
        ("conv3x3:\u0661+output:1", 8, 1, "expected a vertex in 0..0"),
    ],
)
def test_malformed_text(text: str, position: int, width: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, caret = str(error.value).split("\n")
    assert sentence.startswith(f"not a nasbench101 architecture: at position {position} ")
    assert message in sentence
    assert shown == f"  {text}"
    assert caret == f"  {' ' * position}{'^' * width}"


def test_from_matrix_of_names_labels_and_padding() -> None:
    arch = SPACE.parse("maxpool3x3:0+conv1x1:0,1+output:0,2")
    rows = [[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert SPACE.from_matrix(rows, ["input", "maxpool3x3", "conv1x1-bn-relu", "output"]) == arch
    assert SPACE.from_matrix(np.array(rows, dtype=bool), [-1, 2, 1, -2]) == arch
    padded = np.zeros((9, 9), dtype=np.int8)
    padded[:4, :4] = rows
    assert SPACE.from_matrix(padded, np.array([-1, 2, 1, -2, *[-3] * 5])) == arch
    matrix, ops = SPACE.matrix(arch)
    assert (list(map(list, matrix)), ops) == (rows, ("input", "maxpool3x3", "conv1x1-bn-relu", "output"))


@pytest.mark.parametrize(
    ("rows", "ops", "message"),
    [
        (
            [[0, 1], [0, 0]],
            ["input", "output", "output"],
            "adjacency: expected a row and a column for each of 3 ops",
        ),
        (
            [[0, 1], [0, 0]],
            ["input", "out"],
            "ops: expected one of input, output, .* at position 1, got 'out'",
        ),
        ([[0, 1], [0, 0]], [-1, 3], r"ops: expected a label in -3\.\.2 at position 1, got 3"),
        ([[0, 1], [0, 0]], [-2, -1], "ops: expected 'input', operations out of"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [-1, -1, -2], "ops: expected 'input', operations out of"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [-1, -3, -2], "ops: expected 'input', operations out of"),
        ([0, 1], [-1, -2], "adjacency: expected a row and a column for each of 2 ops"),
        ([[0, 1], [0]], [-1, -2], "adjacency: expected a row and a column for each of 2 ops"),
        (np.zeros(4), [-1, -2], "adjacency: expected a row and a column for each of 2 ops"),
        ([[0]], [-1], "ops: expected 2 to 7 vertices, got 1"),
        (np.triu(np.ones((8, 8), dtype=int), 1), [-1, *[0] * 6, -2], "ops: expected 2 to 7 vertices, got 8"),
        ([[0, 1], [1, 0]], [-1, -2], "adjacency: expected 0 and 1, and 1 only above the diagonal"),
        ([[0, 2], [0, 0]], [-1, -2], "adjacency: expected 0 and 1"),
        ([[0, 1, 1], [0, 0, 0], [0, 0, 0]], [-1, -2, -3], "adjacency: expected 0 and 1"),
        ([[0, 0], [0, 0]], [-1, -2], "there is no path from its input to its output"),
    ],
)
def test_bad_matrices(rows: Any, ops: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SPACE.from_matrix(rows, ops)


def test_graph() -> None:
    assert SPACE.graph(SPACE.parse("conv3x3:0+conv1x1:0+maxpool3x3:1,2+output:0,3")) == (
        Edge(0, 1, "conv3x3-bn-relu"),
        Edge(0, 2, "conv1x1-bn-relu"),
        Edge(1, 3, "maxpool3x3"),
        Edge(2, 3, "maxpool3x3"),
        Edge(0, 4, "output"),
        Edge(3, 4, "output"),
    )


def test_encoding() -> None:
    code = SPACE.encode(SPACE.parse("maxpool3x3:0+output:1"))
    assert code == [1.0] + [0.0] * 15 + [1.0] + [0.0] * 4 + [0.0, 0.0, 1.0] + [1.0, 0.0, 0.0] * 4


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "nasbench101.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(example, {})
    assert re.match(r"[0-9a-f]{32} \d+ \d+\n", capsys.readouterr().out)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="channels: expected at least 4"):
        NASBench101(channels=3)
    with pytest.raises(UserError, match="num_cells: expected a positive integer, got 0"):
        NASBench101(num_cells=0)


# ---- the network -----------------------------------------------------------------------------------


def reference_forward(
    state: dict[str, torch.Tensor], arch: Architecture, space: NASBench101, x: torch.Tensor
) -> torch.Tensor:
    """The network written out in functions: train-mode batch norm, channels by the paper's rule."""
    matrix, ops = space.matrix(arch)
    last = len(ops) - 1
    joined = [v for v in range(1, last) if matrix[v][last]]

    def block(y: torch.Tensor, name: str) -> torch.Tensor:
        weight = state[f"{name}.conv.weight"]
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
        return F.batch_norm(y, None, None, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], True).relu()

    def cell(y: torch.Tensor, name: str, width: int) -> torch.Tensor:
        channels = {v: len(range(i, width, len(joined))) for i, v in enumerate(joined)}
        for v in reversed(range(1, last)):
            if v not in channels:
                channels[v] = max(channels[t] for t in range(v + 1, last) if matrix[v][t])
        values = {0: y}
        for t in range(1, last):
            total = torch.zeros(y.shape[0], channels[t], *y.shape[2:], dtype=y.dtype)
            for s in range(1, t):
                if matrix[s][t]:
                    total = total + values[s][:, : channels[t]]
            if matrix[0][t]:
                total = total + block(y, f"{name}.vertex_{t}.projection")
            if ops[t] == "maxpool3x3":
                padded = F.pad(total, (1, 1, 1, 1), value=-torch.inf)
                values[t] = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
            else:
                values[t] = block(total, f"{name}.vertex_{t}.op")
        output = torch.zeros(y.shape[0], width, *y.shape[2:], dtype=y.dtype)
        if joined:
            output = output + torch.cat([values[v] for v in joined], 1)
        return output + block(y, f"{name}.output.projection") if matrix[0][last] else output

    y = block(x, "stem")
    for stack in range(space.num_stacks):
        if stack:
            y = F.pad(y, (0, y.shape[3] % 2, 0, y.shape[2] % 2), value=-torch.inf)
            y = y.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        for module in range(space.num_cells):
            y = cell(y, f"stack{stack}.module{module}", space.channels << stack)
    return y.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("text", CELLS)
def test_network_against_the_written_out_form(text: str) -> None:
    arch = SMALL.parse(text)
    torch.manual_seed(0)
    model = SMALL.build(arch, num_classes=5, in_channels=2).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(3, 2, 7, 10, dtype=torch.float64)
    outputs = model(x)
    expected = reference_forward(dict(model.named_parameters()), arch, SMALL, x)
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_random_networks_against_the_written_out_form() -> None:
    rng = random.Random(0)
    for seed in range(12):
        space = NASBench101(
            channels=rng.randrange(4, 12), num_stacks=rng.randrange(1, 4), num_cells=rng.randrange(1, 3)
        )
        arch = space.sample(rng)
        torch.manual_seed(seed)
        model = space.build(arch).double()
        x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
        expected = reference_forward(dict(model.named_parameters()), arch, space, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_published_parameters_are_those_of_the_networks(
    table: dict[str, Any], published: list[Architecture]
) -> None:
    counts = table["trainable_parameters"]
    for row in [int(np.argmin(counts)), int(np.argmax(counts)), 0, 1, 777, 14_999]:
        with torch.device("meta"):
            model = SPACE.build(published[row])
        assert sum(parameter.numel() for parameter in model.parameters()) == counts[row]


def test_batch_norms_are_the_benchmarks() -> None:
    norms = [m for m in SPACE.build(SPACE.parse(CELLS[1])).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 1 + 9 * 3
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.003)}


def test_multiply_adds_of_odd_images() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for text in CELLS:
        arch = SMALL.parse(text)
        with FlopCounterMode(display=False) as counter:
            SMALL.build(arch, 7).eval()(torch.randn(1, 3, 11, 11))
        assert SMALL.macs(arch, 7, 11) == counter.get_total_flops() // 2


def test_module_names_are_the_authors_scopes() -> None:
    names = {name for name, _ in SPACE.build(SPACE.parse(CELLS[1])).named_parameters()}
    assert {
        "stem.conv.weight",
        "stack0.module0.vertex_1.projection.conv.weight",
        "stack1.module2.vertex_1.op.bn.bias",
        "stack2.module0.output.projection.bn.weight",
        "classifier.bias",
    } <= names
