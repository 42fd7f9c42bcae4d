"""NATS-Bench SSS: published parameters and FLOPs, order, strings, the network written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.spaces import NATSSize

SPACE = NATSSize()


def test_order_is_that_of_the_published_files() -> None:
    assert SPACE.size == 32_768
    assert SPACE.format(SPACE.from_index(0)) == "8:8:8:8:8"
    assert SPACE.format(SPACE.from_index(12)) == "8:8:8:16:40"
    assert SPACE.format(SPACE.from_index(32_767)) == "64:64:64:64:64"


@pytest.mark.parametrize(
    ("text", "params"),
    # What the published files say of CIFAR-10, in millions there.
    [
        ("8:8:8:8:8", 11_714),
        ("8:8:8:16:40", 67_378),
        ("8:8:16:40:40", 107_826),
        ("64:64:64:64:64", 713_674),
    ],
)
def test_published_params(text: str, params: int) -> None:
    assert SPACE.params(SPACE.parse(text)) == params


def test_published_flops() -> None:
    # 7.991706 M in the published file, of which 10 are the additions of the classifier's bias.
    assert SPACE.macs(SPACE.from_index(12)) == 7_991_706 - 10


def reference_forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network in functions: stem, first cell, block, second cell, block, third cell, in this order."""

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(
            y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True, eps=1e-5
        )

    def conv(y: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        return norm(F.conv2d(y.relu(), state[f"{name}.op.1.weight"], None, stride, 1), f"{name}.op.2")

    def cell(y: torch.Tensor, name: str) -> torch.Tensor:
        a = conv(y, f"{name}.layers.0")
        b = conv(y, f"{name}.layers.1") + conv(a, f"{name}.layers.2")
        skip = y
        if f"{name}.layers.3.conv.weight" in state:
            skip = norm(F.conv2d(y, state[f"{name}.layers.3.conv.weight"]), f"{name}.layers.3.bn")
        return skip + conv(a, f"{name}.layers.4") + conv(b, f"{name}.layers.5")

    def block(y: torch.Tensor, name: str) -> torch.Tensor:
        main = conv(conv(y, f"{name}.conv_a", 2), f"{name}.conv_b")
        quarter = y.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
        return main + F.conv2d(quarter, state[f"{name}.downsample.1.weight"])

    y = norm(F.conv2d(x, state["stem.0.weight"], padding=1), "stem.1")
    y = cell(block(cell(block(cell(y, "cells.0"), "cells.1"), "cells.2"), "cells.3"), "cells.4")
    pooled = norm(y, "lastact.0").relu().mean((2, 3))
    return pooled @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("text", ["8:16:24:8:8", "16:24:24:16:8", "8:8:8:8:8"])
def test_network_against_the_written_out_form(text: str) -> None:
    torch.manual_seed(0)
    model = SPACE.build(SPACE.parse(text), num_classes=4, in_channels=2).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    expected = reference_forward(dict(model.named_parameters()), x)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_the_five_numbers_are_the_widths_after_each_part() -> None:
    model = SPACE.build(SPACE.parse("8:64:32:16:24"))
    widths = []
    for module in (model.stem, *model.cells):
        module.register_forward_hook(lambda *a: widths.append(a[2].shape[1]))
    model(torch.rand(1, 3, 8, 8))
    assert widths == [8, 8, 64, 32, 16, 24]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8:64:32:16:12", "at position 11 expected a width out of 8, 16, 24, 32, 40, 48, 56, 64, found '12'"),
        ("8:64:32:16", "at position 10 expected ':' and a width, c5, found the end of the text"),
        ("8:64:32:16:24:8", "at position 13 expected the end of the text, found ':8'"),
        ("8::32:16:24", "at position 2 expected a width out of"),
    ],
)
def test_malformed_strings(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    assert message in str(error.value)


def test_bad_arguments() -> None:
    arch = SPACE.from_index(0)
    with pytest.raises(UserError, match="image_size: expected a multiple of 4"):
        SPACE.macs(arch, image_size=30)
    with pytest.raises(UserError, match="H and W positive multiples of 4"):
        SPACE.build(arch)(torch.zeros(1, 3, 6, 8))
    with pytest.raises(UserError, match="num_classes: expected a positive integer"):
        SPACE.params(arch, num_classes=0)
