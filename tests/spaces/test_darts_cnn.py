from __future__ import annotations

import itertools
import random
import re
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.nn import DARTSSupernet
from pynas.report._cell import draw_cell
from pynas.spaces import DARTSCNN, Edge
from pynas.spaces.darts_cnn.space import OPERATIONS, PAIRS, PUBLISHED, _canonical_cell
from pynas.testing.spaces import Check, initialisation_is_the_callers, network_matches_its_description

SPACE = DARTSCNN()
TINY = DARTSCNN(channels=4, num_cells=3)

# The second-order cells as the authors' code writes them.
V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
    "('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
COMPACT = SPACE.compact(SPACE.parse("DARTS_V2"))


def samples(count: int) -> list[Architecture]:
    rng = random.Random(0)
    return [SPACE.sample(rng) for _ in range(count)]


def test_size() -> None:
    assert SPACE.size == 1_037_664_180**2
    assert [len(pairs) for pairs in PAIRS] == [1, 3, 6, 10]
    assert len(OPERATIONS) == 7


def test_published_parameters() -> None:
    """The authors' README: 3.349M on CIFAR-10, 4.719M on ImageNet, both without the auxiliary head."""
    cifar, imagenet = DARTSCNN(network="cifar"), DARTSCNN(network="imagenet")
    arch = cifar.parse("DARTS_V2")
    assert cifar.params(arch) == 3_349_342
    assert imagenet.params(arch, 1000) == 4_718_752
    assert cifar.macs(arch) == 528_359_040
    assert imagenet.macs(arch, 1000, 224) == 529_911_552


@pytest.mark.parametrize("network", ["cifar", "imagenet"])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_parameters_of_the_networks(network: str, auxiliary: bool) -> None:
    space = DARTSCNN(network=network, auxiliary=auxiliary, num_cells=7)
    arch = space.parse("DARTS_V1")
    model = space.build(arch, 11)
    assert sum(p.numel() for p in model.parameters()) == space.params(arch, 11)


@pytest.mark.slow
def test_multiply_adds_with_an_auxiliary_head_and_odd_sizes() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    (arch,) = samples(1)
    for network, image_size in (("search", 33), ("imagenet", 221)):
        space = DARTSCNN(network=network, channels=4, num_cells=4, auxiliary=True)
        model = space.build(arch, 3)
        with FlopCounterMode(display=False) as counter:
            model(torch.rand(2, 3, image_size, image_size))
        assert counter.get_total_flops() == 4 * space.macs(arch, 3, image_size)


def test_genotypes_in_every_notation() -> None:
    arch = SPACE.parse(V2)
    assert arch == SPACE.parse("DARTS_V2") == SPACE.parse(f"DARTS_V2 = {V2}")
    assert arch == SPACE.parse(V2.replace("[2, 3, 4, 5]", "range(2, 6)").replace(" ", "\n  "))
    assert arch == SPACE.parse(V2.replace("[", "(").replace("]", ",)").replace("'", '"'))
    for other in samples(20):
        genotype = SPACE.genotype(other)
        assert other == SPACE.parse(genotype) == SPACE.parse(genotype.to_json())
        assert other == SPACE.parse(SPACE.compact(other)) == SPACE.parse(str(genotype))
        fields: dict[str, list[tuple[str, int]]] = {}
        exec(f"fields |= dict({SPACE.format(other).removeprefix('Genotype(')}", {"fields": fields})
        assert tuple(fields["normal"]) == genotype.normal
        assert list(fields["reduce_concat"]) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("old", "new", "marked", "message"),
    [
        (V2, "DARTS_V3", "DARTS_V3", "expected 'Genotype(', DARTS_V1 or DARTS_V2, or 'normal'"),
        ("('sep_conv_3x3', 0)", "('sep_conv_3x4', 0)", "sep_conv_3x4", "did you mean 'sep_conv_3x3'?"),
        ("('sep_conv_3x3', 0)", "('none', 0)", "none", "an operation out of max_pool_3x3"),
        ("('sep_conv_3x3', 1)", "('sep_conv_3x3', 2)", "2", "a source in 0..1, found '2'"),
        ("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", "0", "another source than 0"),
        ("[2, 3, 4, 5]", "[2, 3, 5]", "[", "range(2, 6): every node is part of the output"),
        ("[2, 3, 4, 5]", "range(1, 6)", "range", "range(2, 6): every node is part of the output"),
        (", reduce_concat", " reduce_concat", "reduce_concat", "expected ',' or ')'"),
        ("reduce=", "reduced=", "reduced", "a field out of"),
        ("reduce=", "normal=", "normal", "a field out of reduce, reduce_concat"),
        (", ('dil_conv_3x3', 2)]", "]", "]", "expected ','"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 2), ('dil_conv_3x3', 2)]", "(", "expected ']'"),
        (V2, COMPACT.replace("|", "+", 1), "+", "expected '|'"),
        (V2, COMPACT.replace("  reduce", ""), "max_pool_3x3", "expected 'reduce'"),
        (V2, COMPACT.replace("~0", "~", 1), "+", "a source in 0..1"),
        (V2, f"{COMPACT}|", "|", "the end of the text"),
    ],
)
def test_malformed_genotypes(old: str, new: str, marked: str, message: str) -> None:
    text = V2.replace(old, new, 1)
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, carets = str(error.value).split("\n")
    assert message in sentence
    assert shown == f"  {text}"
    assert shown[carets.index("^") : len(carets)] == marked


def test_canonical_cells_are_numberings_of_one_another() -> None:
    """Renumbering nodes, by a reference on sets of edges, never changes the canonical form."""
    rng = random.Random(3)
    for arch in samples(30):
        cells = []
        for cell in SPACE.cells(arch):
            order = list(range(4))
            rng.shuffle(order)
            name = {0: 0, 1: 1, **{2 + old: 2 + new for new, old in enumerate(order)}}
            moved = [[(op, name[source]) for op, source in cell[old]] for old in order]
            if any(source >= 2 + i for i, node in enumerate(moved) for _, source in node):
                moved = [list(node) for node in cell]  # not an order in which the cell can be computed
            cells.append(moved)
        texts = [
            "|".join("+".join(f"{OPERATIONS[op]}~{source}" for op, source in node) for node in cell)
            for cell in cells
        ]
        other = SPACE.parse(f"normal {texts[0]} reduce {texts[1]}")
        assert SPACE.canonical(other) == SPACE.canonical(arch)
        assert SPACE.canonical(arch).decisions <= arch.decisions


def classes(operations: int, per_edge: bool) -> Fraction:
    """Cells up to the numbering of nodes, by Burnside's lemma over the symmetries of each of 180 topologies.

    ``operations`` are chosen on each edge, or once for both edges of a node.
    """
    total = Fraction(0)
    for sources in itertools.product(*PAIRS):
        topology = frozenset((source, 2 + i) for i, pair in enumerate(sources) for source in pair)
        numberings, symmetries, fixed = set(), 0, 0
        for order in itertools.permutations(range(2, 6)):
            name = dict(zip(range(6), (0, 1, *order), strict=True))
            moved = frozenset((name[a], name[b]) for a, b in topology)
            if any(a >= b for a, b in moved):
                continue
            numberings.add(moved)
            if moved == topology:
                symmetries += 1
                rest: set[Any] = set(topology) if per_edge else set(range(2, 6))
                cycles = 0
                while rest:
                    cycles += 1
                    item = first = rest.pop()
                    while (item := (name[item[0]], name[item[1]]) if per_edge else name[item]) != first:
                        rest.remove(item)
                fixed += operations**cycles
        total += Fraction(fixed, symmetries * len(numberings))
    return total


@pytest.mark.slow
def test_number_of_canonical_cells() -> None:
    assert classes(7, per_edge=True) == 382_128_166
    for operations, per_edge in ((1, True), (2, False)):
        forms = set()
        for choices in itertools.product(range(operations), repeat=4):
            for sources in itertools.product(*PAIRS):
                cell = [((op, a), (op, b)) for op, (a, b) in zip(choices, sources, strict=True)]
                forms.add(tuple(_canonical_cell(cell)))
        assert len(forms) == classes(operations, per_edge)


def test_equal_canonical_forms_are_equal_functions() -> None:
    """The cells of a genotype and of its canonical form, with the same weights on the same operations."""
    for arch in samples(6):
        form = SPACE.canonical(arch)
        torch.manual_seed(0)
        old, new = (
            TINY.build(Architecture("darts_cnn", a.decisions)).get_submodule("cells.0") for a in (arch, form)
        )
        cells = [SPACE.cells(a)[0] for a in (arch, form)]
        # Find the numbering by trying them all: the one that maps every node's edges.
        for order in itertools.permutations(range(4)):
            name = {0: 0, 1: 1, **{2 + o: 2 + n for n, o in enumerate(order)}}
            if all(
                sorted((op, name[s]) for op, s in cells[0][o]) == sorted(cells[1][n])
                for n, o in enumerate(order)
            ):
                break
        else:
            raise AssertionError("the canonical form is no numbering of the cell")
        for part in ("preprocess0", "preprocess1"):
            new.get_submodule(part).load_state_dict(old.get_submodule(part).state_dict())
        for n, o in enumerate(order):
            for edge, (op, source) in enumerate(cells[0][o]):
                place = cells[1][n].index((op, name[source]))
                state = old.get_submodule(f"_ops.{2 * o + edge}").state_dict()
                new.get_submodule(f"_ops.{2 * n + place}").load_state_dict(state)
        x = torch.rand(2, 12, 5, 5)
        parts = old(x, x).split(4, dim=1)
        torch.testing.assert_close(new(x, x), torch.cat([parts[o] for o in order], dim=1))


def test_graph_has_both_cells() -> None:
    graph = SPACE.graph(SPACE.parse("DARTS_V2"))
    assert len(graph) == 2 * (8 + 4)
    assert graph[7] == Edge(2, 5, "dil_conv_3x3")
    assert graph[11] == Edge(5, 6, "concat")
    assert graph[12] == Edge(7, 9, "max_pool_3x3")
    assert graph[23] == Edge(12, 13, "concat")


def test_the_drawing_names_inputs_and_nodes() -> None:
    drawing = draw_cell(SPACE.graph(SPACE.parse("DARTS_V2")), SPACE.node_labels)
    assert [drawing.count(f">{name}</text>") for name in ("k-2", "k-1", "3", "k")] == [2, 2, 2, 2]
    assert drawing.count(">concat</text>") == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [network_matches_its_description, initialisation_is_the_callers],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("options", [{"network": "imagenet", "num_cells": 4}, {"num_cells": 1}], ids=str)
def test_other_skeletons(options: dict[str, Any], check: Check) -> None:
    check(DARTSCNN(channels=3, **options))


def written_out(model: nn.Module, genotype_text: str, x: Tensor, cells: int) -> Tensor:
    """The CIFAR network from the paper's description: functions of a state dict, train-mode batch norm."""
    state = dict(model.named_parameters())
    cut = genotype_text.index(" reduce ")
    texts = [genotype_text[len("normal ") : cut].strip(), genotype_text[cut + len(" reduce ") :].strip()]

    def norm(y: Tensor, name: str) -> Tensor:
        return F.batch_norm(y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    def factorised(y: Tensor, name: str) -> Tensor:
        y = y.relu()
        halves = [y[:, :, i::2, i::2] for i in (0, 1)]
        return norm(
            torch.cat([F.conv2d(h, state[f"{name}.conv_{i + 1}.weight"]) for i, h in enumerate(halves)], 1),
            f"{name}.bn",
        )

    def one_by_one(y: Tensor, name: str) -> Tensor:
        return norm(F.conv2d(y.relu(), state[f"{name}.op.1.weight"]), f"{name}.op.2")

    def operation(op: str, y: Tensor, name: str, stride: int) -> Tensor:
        if op == "skip_connect":
            return y if stride == 1 else factorised(y, name)
        if op == "max_pool_3x3":
            return F.max_pool2d(y, 3, stride, 1)
        if op == "avg_pool_3x3":
            ones = torch.ones_like(y)
            return F.avg_pool2d(y, 3, stride, 1) / F.avg_pool2d(ones, 3, stride, 1)
        k, dilation = int(op[-1]), 2 if op.startswith("dil") else 1
        for first in (1, 5) if op.startswith("sep") else (1,):
            y = F.conv2d(
                y.relu(), state[f"{name}.op.{first}.weight"], None, stride if first == 1 else 1,
                dilation * (k // 2), dilation, groups=y.shape[1],
            )  # fmt: skip
            y = norm(F.conv2d(y, state[f"{name}.op.{first + 1}.weight"]), f"{name}.op.{first + 2}")
        return y

    s0 = s1 = norm(F.conv2d(x, state["stem.0.weight"], padding=1), "stem.1")
    reduced = False
    for i in range(cells):
        reduction, name = i in (cells // 3, 2 * cells // 3), f"cells.{i}"
        a = (factorised if reduced else one_by_one)(s0, f"{name}.preprocess0")
        states = [a, one_by_one(s1, f"{name}.preprocess1")]
        for j, node in enumerate(texts[reduction].split("|")):
            terms = []
            for edge, token in enumerate(node.split("+")):
                op, source = token.split("~")
                stride = 2 if reduction and int(source) < 2 else 1
                terms.append(operation(op, states[int(source)], f"{name}._ops.{2 * j + edge}", stride))
            states.append(terms[0] + terms[1])
        s0, s1, reduced = s1, torch.cat(states[2:], 1), reduction
    return s1.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("seed", range(4))
def test_network_against_the_written_out_form(seed: int) -> None:
    space = DARTSCNN(channels=4, num_cells=6)
    arch = space.sample(random.Random(seed))
    torch.manual_seed(seed)
    model = space.build(arch, num_classes=5).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(3, 3, 16, 8, dtype=torch.float64)
    expected = written_out(model, space.compact(arch), x, 6)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_parameter_names_are_those_of_the_authors() -> None:
    arch = SPACE.parse("DARTS_V2")
    cifar = DARTSCNN(channels=4, num_cells=5, auxiliary=True).build(arch).state_dict()
    assert {
        "stem.0.weight",
        "cells.0.preprocess0.op.1.weight",
        "cells.0._ops.0.op.6.weight",
        "cells.0._ops.7.op.2.weight",
        "cells.2.preprocess0.conv_2.weight",
        "auxiliary_head.features.6.weight",
        "auxiliary_head.classifier.bias",
        "classifier.weight",
    } <= cifar.keys()
    imagenet = DARTSCNN(network="imagenet", channels=4, num_cells=5, auxiliary=True).build(arch).state_dict()
    assert {
        "stem0.0.weight",
        "stem0.4.weight",
        "stem1.1.weight",
        "stem1.2.bias",
        "cells.0.preprocess0.conv_1.weight",
        "auxiliary_head.features.5.weight",
    } <= imagenet.keys()
    assert "auxiliary_head.features.6.weight" not in imagenet
    assert imagenet["stem0.0.weight"].shape == (2, 3, 3, 3)


def test_the_auxiliary_head_speaks_in_training_only() -> None:
    space = DARTSCNN(channels=2, num_cells=3, auxiliary=True)
    model = space.build(space.parse("DARTS_V2"), 7)
    x = torch.rand(2, 3, 32, 32)
    logits, auxiliary = model(x)
    assert logits.shape == auxiliary.shape == (2, 7)
    F.cross_entropy(auxiliary, torch.tensor([0, 3])).backward()
    assert model.get_parameter("stem.0.weight").grad is not None
    assert model.get_parameter("classifier.weight").grad is None
    assert model.eval()(x).shape == (2, 7)
    with pytest.raises(UserError, match=r"auxiliary head needs 8 x 8 pixels .* got 7 x 7"):
        model.train()(torch.rand(2, 3, 28, 28))


def test_drop_path_rises_and_spares_the_identity() -> None:
    space = DARTSCNN(channels=2, num_cells=3, drop_path=0.4)
    model = space.build(space.parse("DARTS_V2"))
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(model(x), model(x)), "nothing is dropped at the start"
    model.schedule_drop_path(0.5)  # type: ignore[operator]
    assert model.drop_path_prob == 0.2
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    with pytest.raises(UserError, match="progress"):
        model.schedule_drop_path(1.5)  # type: ignore[operator]

    node = "max_pool_3x3~0+skip_connect~1"
    arch = space.parse(f"normal {node}|{node}|{node}|{node} {COMPACT[COMPACT.index('reduce') :]}")
    cell = DARTSCNN(channels=50, num_cells=3).build(arch).get_submodule("cells.0")
    torch.manual_seed(0)
    s = torch.rand(400, 150, 1, 1)
    kept = cell(s, s, 0.0)
    dropped = cell(s, s, 0.25)
    a = cell.get_submodule("preprocess0")(s)
    # Node 3 = pool(a) + b on one pixel, where pools change nothing: for each sample pool(a) / 0.75 or 0.
    difference = (dropped - kept)[:, 50:100]
    was_dropped = torch.isclose(difference, -a, atol=1e-5).flatten(1).all(1)
    scaled = torch.isclose(difference, a / 3, atol=1e-5).flatten(1).all(1)
    assert bool((was_dropped ^ scaled).all())
    assert 60 <= int(was_dropped.sum()) <= 140  # 100 +- 4.6 standard deviations


@pytest.mark.slow
def test_supernets_speak_this_space() -> None:
    torch.manual_seed(0)
    space = DARTSCNN(channels=2, num_cells=3)
    supernet = space.supernet(num_classes=4)
    assert isinstance(supernet, DARTSSupernet)
    found = space.parse(supernet.derive())
    # The strongest edge of a node comes first in a derived genotype, the lower source here.
    assert space.genotype(found) == space.genotype(space.parse(str(supernet.derive())))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(supernet(x, supernet.derive()), supernet(x, space.genotype(found)))
    with pytest.raises(UserError, match="CIFAR stem"):
        DARTSCNN(network="imagenet").supernet()


def test_published_names() -> None:
    assert set(PUBLISHED) == {"DARTS_V1", "DARTS_V2"}
    # As in the paper's figures of both reduction cells.
    for name in PUBLISHED:
        operations = [OPERATIONS[op] for node in SPACE.cells(SPACE.parse(name))[1] for op, _ in node]
        assert sum("pool" in op for op in operations) == 5
        assert operations.count("skip_connect") == 3


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="network: expected one of search, cifar, imagenet, got 'mnist'"):
        DARTSCNN(network="mnist")
    with pytest.raises(UserError, match="channels: expected a positive integer, got 0"):
        DARTSCNN(channels=0)
    with pytest.raises(UserError, match=r"drop_path: expected a probability in \[0, 1\), got 1"):
        DARTSCNN(drop_path=1)
    with pytest.raises(UserError, match="halves them, expected at least 2"):
        DARTSCNN(network="imagenet", channels=1)
    with pytest.raises(UserError, match="num_classes: expected a positive integer"):
        SPACE.build(samples(1)[0], num_classes=0)


def test_parameters_are_numbered_in_the_order_of_the_text() -> None:
    """The authors' code appends the operations of a cell as the genotype lists them."""
    arch = SPACE.parse(V2)
    assert SPACE.parse(SPACE.format(arch)).notation == arch.notation == "00100101"
    assert arch == SPACE.parse(SPACE.format(arch.plain))  # the same architecture
    assert arch.plain.notation == ""
    network, genotype = SPACE.build(arch), SPACE.genotype(arch)
    for cell, listed in ((network.cells[0], genotype.normal), (network.cells[2], genotype.reduce)):
        for k, (operation, source) in enumerate(listed):
            module = cell._ops[k]
            kernels = [m.kernel_size for m in module.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
            pools = [m for m in module.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
            assert bool(kernels) == ("conv" in operation)
            assert bool(pools) == ("pool" in operation)
            assert cell.sources[k] == source


def test_the_order_of_edges_does_not_change_the_function() -> None:
    arch = SPACE.parse(V2)
    torch.manual_seed(0)
    network, other = SPACE.build(arch).double().eval(), SPACE.build(arch.plain).double().eval()
    weights = dict(network.state_dict())
    genotypes = SPACE.genotype(arch), SPACE.genotype(arch.plain)
    renamed = {}
    for name, value in weights.items():
        match = re.match(r"cells\.(\d+)\._ops\.(\d+)\.(.*)", name)
        if match:
            cell, k = int(match[1]), int(match[2])
            mine, theirs = (g.reduce if cell in (2, 5) else g.normal for g in genotypes)
            node = k // 2 * 2
            k = node + list(theirs[node : node + 2]).index(mine[k])
            name = f"cells.{cell}._ops.{k}.{match[3]}"
        renamed[name] = value
    other.load_state_dict(renamed)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(network(x), other(x), rtol=1e-9, atol=1e-12)
