"""Spaces made of a factory: conformance, counting, notation, and what may go wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces.base import SPACES
from pynas.testing.spaces import CHECKS, Check


def network(width: int, kernel: int, depth: int, in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in [in_channels, *[width] * (depth - 1)]:
        layers += [nn.Conv2d(channels, width, kernel, padding="same"), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


CHOICES = {"width": [4, 8, 16], "kernel": [3, 5], "depth": [1, 2]}
SPACE = spaces.custom(network, choices=CHOICES, image_size=12)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check) -> None:
    check(SPACE)


def test_notation() -> None:
    arch = SPACE.parse("width=8,kernel=3,depth=2")
    assert arch.decisions == (1, 0, 1)
    assert SPACE.format(arch) == "width=8,kernel=3,depth=2"
    assert SPACE.arguments(arch) == {"width": 8, "kernel": 3, "depth": 2}
    assert SPACE.size == 12
    assert SPACE.image_size == 12


@pytest.mark.parametrize(
    ("text", "position", "width", "message"),
    [
        ("width=8,kernle=3,depth=2", 7, 9, "expected ',kernel=', found ',kernle=3'"),
        ("width=9,kernel=3,depth=2", 6, 1, "expected width out of 4, 8, 16, found '9'"),
        ("width=8,kernel=3", 16, 1, "expected ',depth=', found the end of the text"),
        ("width=8,kernel=3,depth=2,", 24, 1, "expected the end of the text, found ','"),
    ],
)
def test_malformed_text(text: str, position: int, width: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    sentence, shown, caret = str(error.value).split("\n")
    assert f"at position {position} " in sentence
    assert message in sentence
    assert (shown, caret) == (f"  {text}", f"  {' ' * position}{'^' * width}")


def test_counts_by_hand_and_nothing_is_computed() -> None:
    made = []

    def factory(width: int) -> nn.Module:
        made.append(torch.zeros(()).device.type)
        return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.Flatten(), nn.Linear(width * 9, 2))

    space = spaces.custom(factory, {"width": [4, 8]})
    arch = space.parse("width=8")
    before = torch.get_rng_state()
    assert space.params(arch) == (27 * 8 + 8) + (72 * 2 + 2)
    assert space.macs(arch, image_size=8) == 27 * 8 * 9 + 72 * 2
    assert space.macs(arch, image_size=8) == 27 * 8 * 9 + 72 * 2
    assert made == ["meta", "meta"]  # remembered: once for parameters, once for multiply-adds
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.device.type for p in space.build(arch).parameters()] == ["cpu"] * 4


def test_a_factory_that_needs_numbers_is_counted_on_the_cpu() -> None:
    class Awkward(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(3, width)
            assert float(self.layer.weight.abs().sum()) > 0  # no such thing on the meta device

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x.mean((2, 3)))
            return y

    space = spaces.custom(Awkward, {"width": [4, 8]})
    before = torch.get_rng_state()
    assert space.params(space.parse("width=4")) == 16
    assert space.macs(space.parse("width=4")) == 12
    assert torch.equal(torch.get_rng_state(), before)


def test_values_of_any_kind_have_a_label() -> None:
    def factory(act: type[nn.Module], bias: bool, sizes: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Conv2d(*sizes, 1, bias=bias), act())

    choices: dict[str, Any] = {
        "act": [nn.ReLU, nn.SiLU],
        "bias": [False, True],
        "sizes": {"small": (3, 4), "large": (3, 8)},
    }
    space = spaces.custom(factory, choices, name="mine")
    arch = space.parse("act=SiLU,bias=True,sizes=large")
    assert isinstance(space.build(arch)[1], nn.SiLU)  # type: ignore[index]
    assert space.params(arch) == 32
    assert arch.space == space.name == "mine"


def test_a_custom_space_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPACES, "_objects", dict(SPACES._objects))
    space = spaces.custom(network, CHOICES, name="mine")
    spaces.register(type(space))
    assert spaces.get("mine").sample(random.Random(0)) == space.sample(random.Random(0))


def test_it_can_be_searched() -> None:
    import pynas
    from pynas.trial import Evaluation, Status

    def accuracy(architecture: Architecture) -> Evaluation:
        return Evaluation(Status.OK, scores={"depth": float(SPACE.arguments(architecture)["depth"])})

    result = pynas.search(
        SPACE,
        "random",
        ["depth"],
        constraints={"flops": 150_000},
        budget=20,
        evaluator=accuracy,
        image_size=12,
    )
    assert result.best is not None
    assert "depth=2" in SPACE.format(result.best.architecture)
    assert len(result.trials) < 12  # the widest are too dear


@pytest.mark.parametrize(
    ("factory", "choices", "message"),
    [
        (network, {}, "choices: expected at least one argument"),
        (network, {"width": [4], "kernel": [3]}, "choices: the factory needs 'depth' too"),
        (network, {**CHOICES, "size": [1]}, "takes no keyword argument 'size'; it takes: depth, in_channels"),
        (network, {**CHOICES, "width": []}, r"choices\['width'\]: expected at least one value"),
        (network, {**CHOICES, "width": "48"}, r"choices\['width'\]: expected a list of values"),
        (network, {**CHOICES, "width": [4, "4"]}, r"choices\['width'\]: two values have the same text"),
        (network, {**CHOICES, "width": [(1, 2)]}, r"the text '\(1, 2\)' of a value cannot stand"),
        (network, {**CHOICES, "num_classes": [10]}, "'num_classes' is given by the task"),
        ("resnet18", {"width": [4]}, "factory: expected a function that returns a torch.nn.Module, got str"),
    ],
)
def test_bad_arguments(factory: Any, choices: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spaces.custom(factory, choices)


def test_a_factory_that_returns_something_else() -> None:
    space = spaces.custom(lambda width: width, {"width": [4]})
    with pytest.raises(UserError, match=r"factory: expected it to return a torch\.nn\.Module, got int"):
        space.params(space.parse("width=4"))
