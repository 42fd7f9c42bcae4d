from __future__ import annotations

import itertools
import math
import random
from typing import ClassVar

import pytest
from torch import nn

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.testing.spaces import CHECKS, Check


class Widths(SearchSpace):
    """Three convolutions whose widths may not shrink; takes every default that it can."""

    name: ClassVar[str] = "widths"
    summary: ClassVar[str] = "three convolutions of non-decreasing width"
    widths: ClassVar[tuple[int, ...]] = (2, 4, 8)

    @property
    def num_choices(self) -> tuple[int, ...]:
        return (len(self.widths),) * 3

    def is_valid(self, decisions: tuple[int, ...]) -> bool:
        return list(decisions) == sorted(decisions)

    def _valid(self) -> list[tuple[int, ...]]:
        return [(a, b, c) for a in range(3) for b in range(a, 3) for c in range(b, 3)]

    @property
    def size(self) -> int:
        return math.comb(5, 3)

    def index(self, arch: Architecture) -> int:
        return self._valid().index(self.check(arch))

    def from_index(self, index: int) -> Architecture:
        return Architecture(self.name, self._valid()[self._check_index(index)])

    def _channels(self, arch: Architecture, in_channels: int) -> list[int]:
        return [in_channels, *(self.widths[d] for d in self.check(arch))]

    def params(self, arch: Architecture, num_classes: int = 10, in_channels: int = 3) -> int:
        widths = self._channels(arch, in_channels)
        return sum(9 * a * b + b for a, b in itertools.pairwise(widths)) + ((widths[-1] + 1) * num_classes)

    def macs(
        self, arch: Architecture, num_classes: int = 10, image_size: int = 32, in_channels: int = 3
    ) -> int:
        widths = self._channels(arch, in_channels)
        convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
        return convolutions * image_size**2 + widths[-1] * num_classes

    def build(
        self, arch: Architecture, num_classes: int = 10, in_channels: int = 3, prune: bool = False
    ) -> nn.Module:
        widths = self._channels(arch, in_channels)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes)]
        return nn.Sequential(*layers, *pool)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*spaces.names(), "a user's"])
def test_every_space(name: str, check: Check) -> None:
    check(Widths() if name == "a user's" else spaces.get(name))


def test_the_default_text_names_the_bad_decision() -> None:
    with pytest.raises(UserError, match=r"at position 2 expected an integer in 0\.\.2, found '7'"):
        Widths().parse("0-7-1")
    with pytest.raises(UserError, match="expected the end of the text after 3 decisions, found '1'"):
        Widths().parse("0-0-0-1")
    with pytest.raises(UserError, match="expected '-' and decision 1, found the end of the text"):
        Widths().parse("0")
    with pytest.raises(UserError, match="break the constraints of widths"):
        Widths().parse("2-0-1")


def test_an_unknown_space_lists_the_choices() -> None:
    with pytest.raises(UserError, match=r"unknown search space 'nasbench102'; known: .*nasbench201"):
        spaces.get("nasbench102")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'nasbench201' is registered already"):
        spaces.register(spaces.NASBench201)


def test_a_space_of_one_cannot_be_mutated() -> None:
    class Single(Widths):
        widths = (4,)

        @property
        def num_choices(self) -> tuple[int, ...]:
            return (1, 1, 1)

    with pytest.raises(UserError, match="nothing to mutate"):
        Single().mutate(Architecture("widths", (0, 0, 0)), random.Random(0))
