"""TransNAS-Bench-101: counts, strings, costs, equivalence of cells."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict

import pytest
import torch

from pynas._errors import UserError
from pynas.spaces import Edge, TransNASMacro, TransNASMicro
from pynas.spaces.nasbench201.space import EDGES, live_edges
from pynas.spaces.transnas.space import TASKS, TransNASSpace

MICRO, MACRO = TransNASMicro(), TransNASMacro()


def test_sizes_are_the_published_ones() -> None:
    assert MICRO.size == 4_096
    archs = list(MACRO.all())
    assert len(archs) == len(set(archs)) == MACRO.size == 3_256
    assert Counter(len(MACRO.modules(arch)) for arch in archs) == {4: 210, 5: 750, 6: 2_296}


def test_the_authors_examples() -> None:
    arch = MICRO.parse("64-41414-1_02_333")
    assert MICRO.graph(arch) == (
        Edge(0, 1, "skip_connect"),
        Edge(0, 2, "none"),
        Edge(1, 2, "nor_conv_1x1"),
        Edge(0, 3, "nor_conv_3x3"),
        Edge(1, 3, "nor_conv_3x3"),
        Edge(2, 3, "nor_conv_3x3"),
    )
    shapes = []
    network = TransNASMacro(channels=8).build(TransNASMacro(channels=8).parse("8-1234-basic"))
    for child in network.encoder:
        child.register_forward_hook(lambda *a: shapes.append(tuple(a[2].shape[1:])))
    network(torch.rand(2, 3, 64, 64))
    # normal, channels x 2, resolution / 2, both
    assert shapes == [(8, 16, 16), (8, 16, 16), (16, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_the_tasks_are_the_published_ones() -> None:
    assert {task: TransNASMicro(task=task).num_outputs for task in TASKS} == {
        "class_scene": 47,
        "class_object": 75,
        "room_layout": 9,
        "jigsaw": 1000,
        "segmentsemantic": 17,
        "normal": 3,
        "autoencoder": 3,
    }


def test_params_by_hand() -> None:
    total = 9 * 3 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    # 64-41414-1_02_333: a skip, a 1x1 and a 3x3 of the input, two more 3x3.
    for a, b, first_is_reduction in (
        (64, 128, True), (128, 128, False), (128, 128, False), (128, 128, False), (128, 256, True),
        (256, 256, False), (256, 256, False), (256, 256, False), (256, 512, True), (512, 512, False),
    ):  # fmt: skip
        total += first_is_reduction * (a * b + 2 * b)
        total += (b * b + 2 * b) + (9 * a * b + 2 * b) + 2 * (9 * b * b + 2 * b)
    assert MICRO.params(MICRO.parse("64-41414-1_02_333"), 47) == total + 513 * 47


@pytest.mark.parametrize(
    ("code", "params"),
    # Of NAS-Bench-Suite-Zero, in millions there; NASLib gives class_scene 63 classes.
    [
        ("1_21_111", 1_084_511),
        ("2_32_323", 22_372_959),
        ("3_11_212", 7_892_319),
        ("1_02_031", 8_755_551),
        ("2_02_212", 3_136_095),
        ("3_03_002", 14_706_271),
        ("3_33_133", 35_493_215),
        ("0_20_203", 9_094_751),
    ],
)
def test_published_params(code: str, params: int) -> None:
    assert MICRO.params(MICRO.parse(f"64-41414-{code}"), 63) == params


# ---- equivalence -----------------------------------------------------------------------------------


def value(decisions: tuple[int, ...], weights: dict[int, float]) -> float:
    """A cell of numbers: each operation that computes something is a function of its own weight."""
    live = live_edges(decisions)
    nodes = [0.7, 0.0, 0.0, 0.0]
    for i, (source, target) in enumerate(EDGES):
        if live[i]:
            plain = decisions[i] == 1 and source != 0
            x = nodes[source]
            nodes[target] += x if plain else math.sin(decisions[i] + weights[i] * x)
    return nodes[3]


def computing(decisions: tuple[int, ...]) -> dict[int, int]:
    """Live edges that compute something, and what."""
    live = live_edges(decisions)
    return {
        i: decisions[i]
        for i, (source, _) in enumerate(EDGES)
        if live[i] and not (decisions[i] == 1 and source != 0)
    }


def same_network(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether some matching of their operations gives both cells the same value for any weights."""
    from_a, from_b = computing(a), computing(b)
    if sorted(from_a.values()) != sorted(from_b.values()):
        return False
    weights = dict(zip(from_a, (1.31, -0.73, 2.17, 0.41, -1.93, 3.07), strict=False))
    wanted = value(a, weights)
    return any(
        all(from_a[i] == from_b[j] for i, j in zip(order, from_b, strict=True))
        and math.isclose(
            value(b, {j: weights[i] for i, j in zip(order, from_b, strict=True)}), wanted, abs_tol=1e-12
        )
        for order in itertools.permutations(from_a)
    )


def test_canonical_forms_are_the_same_network() -> None:
    for arch in random.Random(1).sample(list(MICRO.all()), 400):
        form = MICRO.canonical(arch)
        assert same_network(arch.decisions, form.decisions), f"{arch} and {form}"


@pytest.mark.slow
def test_canonical_forms_differ_from_each_other() -> None:
    forms = list(MICRO.unique())
    assert len(forms) == 1_376
    by_operations = defaultdict(list)
    for form in forms:
        by_operations[tuple(sorted(computing(form.decisions).values()))].append(form.decisions)
    rng = random.Random(2)
    for group in by_operations.values():
        pairs = list(itertools.combinations(group, 2))
        for a, b in rng.sample(pairs, min(6, len(pairs))):
            assert not same_network(a, b), f"{a} and {b}"


def test_canonical_forms_have_nothing_dead() -> None:
    arch = MICRO.parse("64-41414-0_33_231")  # nothing reaches node 1, and 2 and 3 stand for each other
    assert MICRO.format(MICRO.canonical(arch)) == "64-41414-0_20_301"
    # One convolution read by two nodes is not two convolutions.
    shared, twice = MICRO.parse("64-41414-3_01_033"), MICRO.parse("64-41414-3_30_033")
    assert MICRO.canonical(shared) != MICRO.canonical(twice)


# ---- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "text", "message"),
    [
        (MICRO, "32-41414-3_02_333", "at position 0 expected '64-41414-', found '3'"),
        (MICRO, "64-41411-3_02_333", "at position 7 expected '4-', found '1'"),
        (MICRO, "64-41414-3_04_333", "at position 12 expected an operation out of 0 none, 1 skip_connect"),
        (MICRO, "64-41414-3-02_333", "at position 10 expected '_', found '-'"),
        (MICRO, "64-41414-3_02_33", "at position 16 expected an operation out of"),
        (MICRO, "64-41414-3_02_3333", "at position 17 expected the end of the text, found '3'"),
        (MACRO, "64-123-basic", "at position 6 expected 4 to 6 digits out of 1, 2, 3, 4, found '-'"),
        (MACRO, "64-1234123-basic", "at position 9 expected '-basic' after 6 digits, found '3'"),
        (MACRO, "64-1235-basic", "at position 6 expected 4 to 6 digits out of 1, 2, 3, 4, found '5'"),
        (MACRO, "64-1111-basic", "at position 3 expected one to four modules that halve"),
        (MACRO, "64-442224-basic", "one to three that double (2 and 4), found '442224'"),
        (MACRO, "64-1234-3_33_333", "at position 7 expected '-basic' and the end of the text"),
    ],
)
def test_malformed_strings(space: TransNASSpace, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        space.parse(text)
    assert message in str(error.value)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"task: expected one of class_scene, .*, got 'depth'"):
        TransNASMicro(task="depth")
    with pytest.raises(UserError, match="channels: expected an even number"):
        TransNASMacro(channels=3)
    space = TransNASMicro(task="normal", channels=2)
    arch = space.from_index(7)
    with pytest.raises(UserError, match="image_size: expected a multiple of 32"):
        space.macs(arch, image_size=100)
    with pytest.raises(UserError, match="H and W multiples of 32"):
        space.build(arch)(torch.rand(1, 3, 32, 40))
    with pytest.raises(UserError, match="expected images"):
        space.build(arch)(torch.rand(3, 32, 32))
