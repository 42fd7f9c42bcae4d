"""Fitness of blocks, the map of candidates, and drawings of spaces."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from pynas import spaces
from pynas._errors import UserError
from pynas.spaces import NASBench201, custom
from pynas.steer import CandidateMap, block_fitness
from pynas.steer._labels import labels_of
from pynas.steer._layout import layout

SPACE = NASBench201(channels=2, num_cells=1)


def sample(count: int) -> list[tuple[int, ...]]:
    rng = random.Random(1)
    return [SPACE.sample(rng).decisions for _ in range(count)]


def test_fitness_is_the_mean_with_the_block_minus_that_of_all() -> None:
    decisions = sample(60)
    values = [float(d[0] == 3) - 2.0 * (d[2] == 0) + 0.1 * d[5] for d in decisions]
    found = {each.id: each for each in block_fitness(decisions, values, SPACE.num_choices)}
    for i, count in enumerate(SPACE.num_choices):
        for choice in range(count):
            block = found[f"{i}:{choice}"]
            chosen = [v for d, v in zip(decisions, values, strict=True) if d[i] == choice]
            assert block.n == len(chosen)
            assert block.frequency == len(chosen) / 60
            assert math.isclose(block.fitness, np.mean(chosen) - np.mean(values), abs_tol=1e-12)
            assert block.low <= block.fitness <= block.high
    assert found["0:3"].verdict == "good"
    assert found["2:0"].verdict == "bad"
    assert found["1:1"].verdict == "unclear"
    assert found["1:1"].thin


def test_the_interval_covers_what_it_should() -> None:
    """Of blocks without any effect, about one in twenty intervals excludes zero."""
    rng = np.random.default_rng(3)
    excluded = total = 0
    for repetition in range(12):
        decisions = rng.integers(0, 5, (150, 6)).tolist()
        values = rng.normal(size=150).tolist()
        for block in block_fitness(decisions, values, (5,) * 6, seed=repetition):
            excluded += block.low > 0 or block.high < 0
            total += 1
    assert 0.01 < excluded / total < 0.11


def test_fitness_is_seeded_and_does_not_depend_on_a_shift() -> None:
    decisions, values = sample(40), [random.Random(i).random() for i in range(40)]
    once = block_fitness(decisions, values, SPACE.num_choices, seed=2)
    assert once == block_fitness(decisions, values, SPACE.num_choices, seed=2)
    moved = block_fitness(decisions, [v + 1e6 for v in values], SPACE.num_choices, seed=2)
    for a, b in zip(once, moved, strict=True):
        if a.n:
            assert math.isclose(a.low, b.low, abs_tol=1e-8)
            assert math.isclose(a.high, b.high, abs_tol=1e-8)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_little_evidence_is_thin(count: int) -> None:
    decisions = sample(2)[:count]
    for block in block_fitness(decisions, [1.0, 2.0][:count], SPACE.num_choices):
        assert block.thin
        assert block.verdict == "unclear"
        assert math.isnan(block.fitness) == (block.n == 0)
        assert None not in (block.to_dict()["n"], block.to_dict()["thin"])


def test_points_of_a_map_never_move() -> None:
    first = CandidateMap(SPACE, points=300, seed=4)
    again = CandidateMap(SPACE, points=300, seed=4)
    assert list(first.places) == list(again.places)
    before = list(first.places)
    new = next(arch for arch in SPACE.all() if arch not in set(first.architectures))
    number = first.locate(new)
    assert number == len(before)
    assert first.locate(new) == number
    assert list(first.places)[:number] == before
    assert first.locate(first.architectures[7]) == 7


def test_a_map_is_the_principal_projection() -> None:
    found = CandidateMap(SPACE, points=400, seed=0)
    codes = np.array([SPACE.encode(arch) for arch in found.architectures])
    codes -= codes.mean(axis=0)
    _, singular, axes = np.linalg.svd(codes, full_matrices=False)
    shares = singular**2 / (singular**2).sum()
    assert np.allclose(found.explained, shares[:2], rtol=1e-6)
    expected = np.abs(codes @ axes[:2].T)
    assert np.allclose(np.abs(np.array(found.places)), expected, atol=2e-5)


def test_maps_of_small_spaces_and_of_wrong_sizes() -> None:
    small = custom(lambda width: None, {"width": [1, 2, 3]})
    assert len(CandidateMap(small, points=50)) == 3
    one = custom(lambda width: None, {"width": [1]})
    assert CandidateMap(one, points=2).places[0] == (0.0, 0.0)
    with pytest.raises(UserError, match="2 to 20,000, got 20001"):
        CandidateMap(SPACE, points=20_001)


DRAWN = [name for name in spaces.names() if spaces.get(name).num_choices]


def all_spaces() -> list[Any]:
    chain = custom(lambda width, kernel: None, {"width": [8, 16], "kernel": ["3x3", "5x5", "7x7"]})
    return [*map(spaces.get, DRAWN), chain]


@pytest.mark.parametrize("space", all_spaces(), ids=lambda space: space.name)
def test_a_drawing_has_every_block_once_and_nothing_overlaps(space: Any) -> None:
    drawn = layout(space)
    counts = space.num_choices
    assert [layer["decision"] for layer in drawn["layers"]] == list(range(len(counts)))
    assert {(b["decision"], b["choice"]) for b in drawn["blocks"]} == {
        (d, c) for d, count in enumerate(counts) for c in range(count)
    }
    assert len({block["id"] for block in drawn["blocks"]}) == sum(counts)

    def box(part: dict[str, Any]) -> tuple[float, float, float, float]:
        half = (part["width"] / 2, part["height"] / 2) if "width" in part else (part["radius"],) * 2
        return part["x"] - half[0], part["y"] - half[1], part["x"] + half[0], part["y"] + half[1]

    parts = [*map(box, drawn["layers"]), *map(box, drawn["nodes"])]
    for i, (left, top, right, bottom) in enumerate(parts):
        assert left >= 0
        assert top >= 0
        assert right <= drawn["width"]
        assert bottom <= drawn["height"]
        for other in parts[:i]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, (parts[i], other)
    for block in drawn["blocks"]:
        layer = box(drawn["layers"][block["decision"]])
        inner = box(block)
        assert layer[0] <= inner[0] < inner[2] <= layer[2]
        assert layer[1] <= inner[1] < inner[3] <= layer[3] + 0.2
        assert len(block["label"]) * 5.5 <= block["width"], "a label fits its block"
    names = {node["id"] for node in drawn["nodes"]} | {f"L{d}" for d in range(len(counts))}
    assert {link[end] for link in drawn["links"] for end in ("from", "to")} <= names
    linked = {link["to"] for link in drawn["links"]} | {link["from"] for link in drawn["links"]}
    assert linked == names, "everything is linked"


def test_labels_are_the_names_of_the_space() -> None:
    labels = labels_of(SPACE)
    arch = SPACE.from_index(1234)
    for decision, edge in zip(zip(arch.decisions, labels, strict=True), SPACE.graph(arch), strict=True):
        choice, label = decision
        assert label.choices[choice].label == edge.label
        assert label.label == f"{edge.source}-{edge.target}"
    proxyless = spaces.get("proxylessnas")
    arch = proxyless.sample(random.Random(0))
    told = [label.choices[c].label for c, label in zip(arch.decisions, labels_of(proxyless), strict=True)]
    assert all(name in proxyless.format(arch) for name in told if name != "Zero")


def test_a_space_may_describe_itself() -> None:
    class Own(NASBench201):
        name = "own"

        def describe_choices(self) -> Any:
            return [
                (f"edge {i}", [(f"op {c}", {"family": "conv", "cost": c}) for c in range(5)])
                for i in range(6)
            ]

    drawn = layout(Own(2, 1))
    assert drawn["layers"][2]["label"] == "edge 2"
    assert drawn["blocks"][7]["properties"] == {"family": "conv", "cost": 2}
