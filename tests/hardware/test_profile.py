from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pynas import spaces
from pynas.hardware import Task, profile, profile_architecture


def test_a_network_counted_by_hand():
    """conv 3->8 (3x3), ReLU, conv 8->4 (1x1), flatten, linear 256->10 on two 8x8 images, float32."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(256, 10)
    )
    result = profile(model, torch.rand(2, 3, 8, 8))
    assert result.params == 224 + 36 + 2570
    assert result.macs == 2 * (27 * 8 * 64 + 8 * 4 * 64 + 256 * 10)
    assert result.flops == 2 * result.macs
    assert result.activations == 2 * (8 * 64 + 4 * 64 + 10)
    image, wide, narrow = 4 * 2 * 3 * 64, 4 * 2 * 8 * 64, 4 * 2 * 4 * 64
    assert result.memory == image + 2 * wide  # at the ReLU: the caller's image, its input, its output
    weights = 4 * (224 + 36 + 2570)
    assert result.traffic == weights + image + wide + 2 * wide + wide + narrow + narrow + 4 * 2 * 10
    assert result.intensity == pytest.approx(result.flops / result.traffic)
    assert result.to_dict()["intensity"] == result.intensity


class Branches(nn.Module):
    """Two branches alive at a time, and views of them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        a, b = x * self.scale, x + 1
        view = x.transpose(0, 1)
        y = torch.cat([a, b, view.transpose(0, 1)], dim=1)
        del a, b
        return torch.matmul(y, y.transpose(2, 3)).sum() + self.scale.sum()


def test_memory_follows_lifetimes_and_views_cost_nothing():
    result = profile(Branches(), torch.rand(6, 1, 8, 4))
    size = 4 * 6 * 8 * 4
    assert result.memory >= size * (1 + 2 + 3)  # x, a and b, their concatenation
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Branches()(torch.rand(6, 1, 8, 4))
    assert result.flops == counter.get_total_flops() > 0


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(2, 3, 5, 5)
    state = torch.get_rng_state()
    profile(model, images)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_architectures_on_meta_equal_real_networks():
    space = spaces.get("nasbench201", channels=4, num_cells=1)
    rng = random.Random(0)
    for prune in (True, False):
        for _ in range(3):
            arch = space.sample(rng)
            task = Task(image_size=8, batch=2, prune=prune, num_classes=7)
            real = profile(space.build(arch, num_classes=7, prune=prune), torch.rand(2, 3, 8, 8))
            for _ in range(2):  # the second time from remembered shapes
                result = profile_architecture(space, arch, task)
                assert (result.params, result.flops, result.activations) == (
                    real.params,
                    real.flops,
                    real.activations,
                )
                # On meta, batch norm in eval mode puts out the statistics that it would save in training.
                assert result.memory == pytest.approx(real.memory, rel=0.02)
                assert result.traffic == pytest.approx(real.traffic, rel=0.02)
            if not prune:
                assert real.macs == 2 * space.macs(arch, 7, 8)
                assert real.params == space.params(arch, 7)


def test_published_size_is_the_default():
    space = spaces.get("nasbench201")
    arch = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|avg_pool_3x3~1|skip_connect~2|")
    whole = profile_architecture(space, arch, Task(prune=False))
    assert whole.macs == space.macs(arch)
    # The most alive at a time in the first stage: four tensors of 16 x 32 x 32 and more, in float32.
    assert 4 * 4 * 16 * 32 * 32 <= whole.memory < 12 * 4 * 16 * 32 * 32
