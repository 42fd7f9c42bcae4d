"""The conformance suite of spaces notices what it is there to notice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pynas.architecture import Architecture
from pynas.spaces import EPNAS, CustomSpace
from pynas.testing import spaces as suite


def network(width: int, kernel: int, in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    convolution = nn.Conv2d(in_channels, width, kernel, padding="same")
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


class Fixed(CustomSpace):
    """Six architectures."""

    image_size = 6

    def __init__(self) -> None:
        super().__init__(network, {"width": [2, 3, 4], "kernel": [1, 3]})


class Open(EPNAS):
    """A few layers."""

    image_size = 6

    def __init__(self) -> None:
        super().__init__(max_layers=3)


def two_moves(space: Any, arch: Architecture, rng: random.Random) -> Architecture:
    first = EPNAS.mutate(space, arch, rng)
    while space.distance(arch, second := EPNAS.mutate(space, first, rng)) < 2:
        pass
    return second


def itself_too(space: Any, arch: Architecture) -> Iterator[Architecture]:
    yield arch
    yield from EPNAS.neighbours(space, arch)


def only_longer(space: Any, arch: Architecture) -> Iterator[Architecture]:
    return EPNAS.grow(space, arch)


def next_one(space: Any, arch: Architecture) -> Architecture:
    return space.from_index((space.index(arch) + 1) % 6)  # type: ignore[no-any-return]


def last_but_not_first(space: Any, arch: Architecture, rng: random.Random) -> Architecture:
    return Architecture(arch.space, (0, *arch.decisions[1:]))


def nonsense(*arguments: Any) -> str:
    raise ValueError("nonsense")


FAULTS: list[tuple[type[Fixed | Open], str, Any, suite.Check]] = [
    (Open, "mutate", two_moves, suite.mutation_makes_a_move),
    (Open, "mutate", lambda space, arch, rng: arch, suite.mutation_makes_a_move),
    (Open, "neighbours", itself_too, suite.neighbours_are_symmetric),
    (Open, "neighbours", only_longer, suite.neighbours_are_symmetric),
    (Open, "neighbours", lambda space, arch: iter(()), suite.neighbours_are_symmetric),
    (Open, "from_index", lambda space, index: space.sample(random.Random(index)), suite.indices_round_trip),
    (
        Open,
        "sample",
        lambda space, rng: EPNAS.sample(space, random.Random(0)),
        suite.sampling_is_valid_and_seeded,
    ),
    (
        Open,
        "sample",
        lambda space, rng: EPNAS.sample(space, random.Random()),
        suite.sampling_is_valid_and_seeded,
    ),
    (Open, "problem", lambda space, decisions: "", suite.foreign_architectures_are_refused),
    (Open, "format", lambda space, arch: EPNAS.format(space, arch).replace("+1", ""), suite.text_round_trips),
    (Open, "parse", nonsense, suite.malformed_text_is_pointed_at),
    (Open, "encode", lambda space, arch: [float(len(arch.decisions))], suite.encoding_is_injective),
    (
        Open,
        "params",
        lambda space, arch, *task: EPNAS.params(space, arch, *task) + 1,
        suite.network_matches_its_description,
    ),
    (
        Open,
        "macs",
        lambda space, arch, *task: EPNAS.macs(space, arch, *task) + 1,
        suite.network_matches_its_description,
    ),
    (
        Open,
        "output_shape",
        lambda space, batch, num_classes=10: (batch, 10),
        suite.network_matches_its_description,
    ),
    (Open, "example_inputs", lambda space, *_: torch.rand(1, 3, 6, 6), suite.network_matches_its_description),
    (Fixed, "mutate", last_but_not_first, suite.mutation_reaches_every_neighbour),
    (Fixed, "distance", lambda space, a, b: 0, suite.mutation_makes_a_move),
    (Fixed, "crossover", lambda space, a, b, rng: space.mutate(a, rng), suite.crossover_mixes_parents),
    (Fixed, "canonical", next_one, suite.canonical_form_is_idempotent),
    (Fixed, "index", lambda space, arch: 0, suite.indices_round_trip),
    (
        Fixed,
        "from_index",
        lambda space, index: Architecture("custom", (0, 0)),
        suite.enumeration_has_the_size,
    ),
    (Fixed, "check", lambda space, arch: arch.decisions, suite.foreign_architectures_are_refused),
]


@pytest.mark.parametrize("space", [Fixed, Open])
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_without_a_fault_nothing_is_found(space: Callable[[], Fixed | Open], check: suite.Check) -> None:
    check(space())


@pytest.mark.parametrize(
    ("space", "method", "fault", "check"), FAULTS, ids=[f"{fault[1]}-{fault[3].__name__}" for fault in FAULTS]
)
def test_faults_are_found(space: type[Fixed | Open], method: str, fault: Any, check: suite.Check) -> None:
    broken = type("Broken", (space,), {method: fault})()
    with pytest.raises((AssertionError, ValueError)):
        check(broken)
