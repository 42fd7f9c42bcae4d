"""The layer-by-layer space: growth, moves, notation, and its networks written out."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.spaces import EPNAS, Edge
from pynas.testing.spaces import CHECKS, Check

SPACE = EPNAS()
MIXED = "conv_3x3:32|sep_conv_5x5:64|max_pool_3x3+1|conv_1x1:64+1|avg_pool_3x3|conv_5x5:16+3"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance_without_a_bound_on_layers(check: Check) -> None:
    check(EPNAS(max_layers=None, max_poolings=1, max_skip=5))


def test_growing_one_layer_at_a_time_reaches_everything() -> None:
    space = EPNAS(max_layers=4, max_poolings=1)
    arch = space.parse("conv_3x3:32|max_pool_3x3|sep_conv_5x5:64+1")
    start = space.parse("conv_3x3:32")
    assert space.parse("conv_3x3:32|max_pool_3x3") in set(space.grow(start))
    assert arch in set(space.grow(space.parse("conv_3x3:32|max_pool_3x3")))
    # Five convolutions of four widths and two poolings; without a shortcut so near to the image.
    assert len(list(space.grow(start))) == 22
    grown = list(space.grow(arch))
    # One pooling is there already; three choices of a shortcut.
    assert len(grown) == 20 * 3
    assert all(space.distance(arch, other) == 1 for other in grown)
    assert all(other.decisions[:-3] == arch.decisions for other in grown)
    assert list(space.grow(grown[0])) == []
    assert set(grown) < set(space.neighbours(arch))


def test_neighbours_are_replacements_growth_and_one_layer_less() -> None:
    space = EPNAS(max_layers=3)
    arch = space.parse("conv_3x3:32|max_pool_3x3")
    neighbours = Counter(len(space.layers(other)) for other in space.neighbours(arch))
    assert neighbours == {1: 1, 2: 21 + 21, 3: 22 * 2}
    rng = random.Random(0)
    assert {space.mutate(arch, rng) for _ in range(4000)} == set(space.neighbours(arch))


def test_crossover_takes_layers_in_their_places() -> None:
    a, b = SPACE.parse("conv_3x3:16|conv_3x3:32"), SPACE.parse("conv_5x5:64|conv_5x5:64|conv_5x5:128+1")
    children = [SPACE.crossover(a, b, random.Random(seed)) for seed in range(100)]
    assert len(set(children)) == 4 + 4
    for child in children:
        layers = SPACE.layers(child)
        assert layers[2:] in ((), SPACE.layers(b)[2:])
        pairs = zip(SPACE.layers(a), SPACE.layers(b)[:2], strict=True)
        assert all(layer in pair for layer, pair in zip(layers[:2], pairs, strict=True))


def test_graph() -> None:
    graph = SPACE.graph(SPACE.parse("conv_3x3:16|max_pool_3x3|conv_1x1:32+1"))
    assert graph == (
        Edge(0, 1, "conv_3x3"),
        Edge(1, 2, "max_pool_3x3"),
        Edge(2, 3, "conv_1x1"),
        Edge(1, 3, "skip_connect"),
    )


def test_network_against_the_written_out_form() -> None:
    """Every kind of layer and of shortcut, on images of odd sizes."""
    torch.manual_seed(0)
    arch = SPACE.parse(MIXED)
    model = SPACE.build(arch, num_classes=5, in_channels=2).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = dict(model.named_parameters())
    x = torch.randn(3, 2, 11, 14, dtype=torch.float64)

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(y, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    def weight(name: str) -> torch.Tensor:
        return state[f"layers.{name}.weight"]

    y0 = norm(F.conv2d(x, weight("0.op.0"), padding=1), "layers.0.op.1").relu()
    y1 = F.conv2d(F.conv2d(y0, weight("1.op.0"), padding=2, groups=32), weight("1.op.1"))
    y1 = norm(y1, "layers.1.op.2").relu()
    half = F.avg_pool2d(F.pad(y0, (0, 0, 0, 1), "replicate"), 2)  # the mean of a part is that of it twice
    y2 = F.max_pool2d(y1, 3, 2, 1) + norm(F.conv2d(half, weight("2.shortcut.1")), "layers.2.shortcut.2")
    third = F.avg_pool2d(F.pad(y1, (0, 0, 0, 1), "replicate"), 2)
    y3 = (norm(F.conv2d(y2, weight("3.op.0")), "layers.3.op.1") + third).relu()
    y4 = F.avg_pool2d(y3, 3, 2, 1, count_include_pad=False)
    quarter = F.avg_pool2d(y1[:, :, :8, :12], 4)
    bottom, right, corner = (
        y1[:, :, 8:, :12].unfold(3, 4, 4).mean((2, 4)).unsqueeze(2),
        y1[:, :, :8, 12:].unfold(2, 4, 4).mean((3, 4)).unsqueeze(3),
        y1[:, :, 8:, 12:].mean((2, 3), keepdim=True),
    )
    quarter = torch.cat([torch.cat([quarter, right], 3), torch.cat([bottom, corner], 3)], 2)
    shortcut = norm(F.conv2d(quarter, weight("5.shortcut.1")), "layers.5.shortcut.2")
    y5 = (norm(F.conv2d(y4, weight("5.op.0"), padding=2), "layers.5.op.1") + shortcut).relu()
    expected = F.linear(y5.mean((2, 3)), state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("conv_3x4:32", 0, "(did you mean 'conv_3x3'?)"),
        ("conv_3x3:33", 9, "expected a width out of 16, 32, 64, 128, found '33'"),
        ("conv_3x3", 8, "expected ':' and a width, found the end of the text"),
        ("max_pool_3x3:16", 12, "expected '|' and a layer, or the end of the text"),
        ("conv_3x3:16|conv_3x3:16+1", 23, "no shortcut leads here"),
        ("conv_3x3:16|conv_3x3:16|conv_3x3:16+2", 36, "expected a number of layers out of 1, found '2'"),
        ("conv_3x3:16|", 12, "found the end of the text"),
        ("|".join(["max_pool_3x3"] * 4), 0, "expected at most max_poolings=3, got 4"),
        ("|".join(["conv_1x1:16"] * 21), 0, "expected at most max_layers=20, got 21"),
    ],
)
def test_malformed_text(text: str, position: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        SPACE.parse(text)
    assert f"at position {position} " in str(error.value)
    assert message in str(error.value)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="max_poolings: expected a positive integer"):
        EPNAS(max_poolings=0)
    with pytest.raises(UserError, match="max_layers: expected a positive integer"):
        EPNAS(max_layers=-1)
