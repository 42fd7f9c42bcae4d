"""naswot as its authors' hook counts, and linear regions over crops, as the code of TE-NAS counts them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas.spaces import NASBench201


def kernel(model: nn.Module, x: Tensor) -> Tensor:
    """The hook of the authors: each module with ReLU in the name of its class, on the input of its call."""
    total = torch.zeros(len(x), len(x)).double()

    def add(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        code = (arguments[0].flatten(1) > 0).double()
        total = total + code @ code.T + (1 - code) @ (1 - code).T

    handles = [m.register_forward_hook(add) for m in model.modules() if "ReLU" in str(type(m))]
    with torch.no_grad():
        model.train()
        model(x)
    for handle in handles:
        handle.remove()
    return total


def test_blocks_called_relu_count_twice() -> None:
    space = NASBench201(channels=4, num_cells=1)
    arch = space.parse(
        "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )
    torch.manual_seed(0)
    model, x = space.build(arch, num_classes=5), torch.randn(7, 3, 16, 16)
    expected = torch.linalg.slogdet(kernel(model, x)).logabsdet.item()
    found = pynas.score(model, x, torch.arange(7) % 5, ["naswot_published", "naswot"])
    assert found["naswot_published"].value == pytest.approx(expected, rel=1e-9)
    assert abs(found["naswot"].value - expected) > 1
    assert [module for module in model.modules() if module._forward_pre_hooks] == []


def test_without_such_blocks_it_is_naswot() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(216, 4)
    )
    x = torch.randn(5, 3, 8, 8)
    found = pynas.score(model, x, torch.arange(5) % 4, ["naswot_published", "naswot"])
    assert found["naswot_published"].value == found["naswot"].value
    functional = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    failed = pynas.score(functional, torch.randn(5, 4), torch.arange(5) % 3, ["naswot_published"])
    assert "no module of the network has ReLU" in failed["naswot_published"].message


def test_linear_regions_over_crops_of_images() -> None:
    """The recipe of the docstring: 3x3 crops, one channel of each, a network with one input channel."""
    rng = random.Random(2)
    images = torch.rand(200, 3, 12, 12)
    crops = []
    for image in images:
        top, left, channel = rng.randrange(10), rng.randrange(10), rng.randrange(3)
        crops.append(image[channel : channel + 1, top : top + 3, left : left + 3])
    x = torch.stack(crops)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 1, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9, 4),
    )
    codes = torch.cat([(model[0](x) > 0).flatten(1), (model[2](model[:2](x)) > 0).flatten(1)], dim=1)
    expected = len({tuple(code.tolist()) for code in codes})
    found = pynas.score(model, x, torch.arange(200) % 4, ["linear_regions"])
    assert found["linear_regions"].value == expected
    assert 1 < expected < 200
