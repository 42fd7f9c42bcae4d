"""Slices of the widest layers against the networks that the space builds."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas import spaces
from pynas.spaces.nasbench101.space import OPERATIONS
from pynas.supernet import SinglePath, SubnetEvaluator, Trainer, TrainingOptions, UniformSampler, build
from pynas.supernet.nasbench101 import NASBench101Supernet

pytestmark = pytest.mark.usefixtures("one_thread")


def supernet(channels: int = 7, **options: int) -> NASBench101Supernet:
    """In float64, with batch norms whose weights, biases and statistics all differ."""
    torch.manual_seed(0)
    model = NASBench101Supernet(spaces.NASBench101(channels=channels, **options), 5).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def sliced(model: NASBench101Supernet, arch: pynas.Architecture) -> nn.Module:
    """The space's own network with the first channels of the supernet's tensors, found by name."""
    network = model.space.build(arch, 5).double()
    tensors = model.state_dict()
    _, operations = model.space.matrix(arch)
    for name, tensor in network.state_dict(keep_vars=True).items():
        parts = name.replace(".module", ".").split(".")
        if "op" in parts:
            parts[parts.index("op")] = operations[int(parts[2].removeprefix("vertex_"))]
        whole = tensors[".".join(parts)]
        with torch.no_grad():
            tensor.copy_(whole[tuple(slice(size) for size in tensor.shape)])
    return network


def images(count: int = 3, size: int = 9) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "cells"), [(4, 2), (7, 1), (13, 1)])
def test_a_cell_is_the_network_of_its_slices(channels: int, cells: int) -> None:
    model = supernet(channels, num_stacks=2, num_cells=cells)
    rng = random.Random(channels)
    archs = [model.space.sample(rng) for _ in range(6)]
    archs += [
        model.space.parse(text)
        for text in (
            "output:0",
            "conv3x3:0+output:0,1",
            "maxpool3x3:0+output:1",
            "conv1x1:0+conv3x3:0+maxpool3x3:0+conv3x3:0+output:1,2,3,4",  # four share what four do not divide
            "conv3x3:0+conv1x1:0,1+conv1x1:1+output:0,2,3",  # a wide vertex feeds narrow ones: truncation
        )
    ]
    for arch in archs:
        network = sliced(model, arch)
        for training in (False, True):
            x, y = images(size=5).requires_grad_(), images(size=5).requires_grad_()
            found, expected = model.train(training)(x, arch), network.train(training)(y)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            (here,) = torch.autograd.grad(found.square().sum(), x)
            (there,) = torch.autograd.grad(expected.square().sum(), y)
            torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-10)
        moved = sliced(model, arch).state_dict()  # running statistics are slices, too
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(moved[name], tensor, rtol=1e-12, atol=1e-12)


def test_channels_that_a_cell_does_not_have_stay() -> None:
    model = supernet(8, num_stacks=1, num_cells=1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arch = model.space.parse("conv3x3:0+conv1x1:0+output:1,2")  # two vertices of four channels
    model(images(), arch).square().sum().backward()
    norm = "stack0.0.vertex_1.conv3x3-bn-relu.bn."
    after = model.state_dict()
    moved = (after[norm + "running_mean"] != before[norm + "running_mean"]).tolist()
    assert moved == [True] * 4 + [False] * 4
    weight = model.get_parameter("stack0.0.vertex_1.conv3x3-bn-relu.conv.weight").grad
    assert weight is not None
    assert (weight[:4, :4] != 0).all()
    assert not weight[4:].any()
    assert not weight[:, 4:].any()
    assert model.get_parameter("stack0.0.vertex_1.conv1x1-bn-relu.conv.weight").grad is None


def test_dead_parts_are_no_part() -> None:
    model = supernet(num_stacks=1, num_cells=1).eval()
    rng = random.Random(2)
    for _ in range(10):
        arch = model.space.sample(rng)
        pruned = model.space.pruned(arch)
        assert torch.equal(model(images(), arch), model(images(), pruned))
        assert [s.key for s in model.segments(arch)] == [s.key for s in model.segments(pruned)]


@pytest.mark.slow
def test_uniform_sampling_meets_every_layer_alike() -> None:
    space = spaces.NASBench101()
    sampler = UniformSampler(space)
    rng = random.Random(0)
    count = 3000
    seen = {(vertex, name): 0 for vertex in range(1, 6) for name in OPERATIONS}
    sizes = dict.fromkeys(range(2, 8), 0)
    for _ in range(count):
        (arch,) = sampler.sample(rng)
        _, operations = space.matrix(arch)
        sizes[len(operations)] += 1
        for vertex, name in enumerate(operations[1:-1], start=1):
            seen[vertex, name] += 1
    # Of 423,624 cells 359,082 have seven vertices and 62,010 six (five standard deviations of a binomial).
    for vertices, cells in ((7, 359_082), (6, 62_010)):
        share = cells / 423_624
        assert abs(sizes[vertices] / count - share) < 5 * (share * (1 - share) / count) ** 0.5
    assert all(0.2 < times / count < 0.45 for times in seen.values())


@pytest.mark.slow
def test_training_and_judging() -> None:
    space = spaces.NASBench101(channels=12, num_stacks=1, num_cells=1)
    torch.manual_seed(0)
    model = build(space, 3)
    targets = torch.arange(96) % 3
    inputs = images(96, 8).float() + 3 * torch.eye(3)[targets][:, :, None, None]  # a colour for each class
    options = TrainingOptions(steps=50, batch_size=32, learning_rate=0.1)
    result = Trainer(model, inputs, targets, SinglePath(UniformSampler(space)), options).train()
    assert sum(result.losses[-10:]) < 0.8 * sum(result.losses[:10])
    rng = random.Random(0)
    cells = [space.sample(rng) for _ in range(8)]
    scores = SubnetEvaluator(model, inputs, targets, calibration=inputs.split(32))(cells)
    assert sum(score.accuracy for score in scores) / 8 > 0.6  # chance is a third


def test_refusals() -> None:
    with pytest.raises(pynas.UserError, match="space: expected nasbench101"):
        NASBench101Supernet(spaces.NASBench201())  # type: ignore[arg-type]
    with pytest.raises(pynas.UserError, match="num_classes"):
        NASBench101Supernet(num_classes=0)
    bare = NASBench101Supernet(spaces.NASBench101(channels=4, num_stacks=1, num_cells=1), affine=False)
    assert not any(p.dim() == 1 for name, p in bare.named_parameters() if "classifier" not in name)
    assert bare(torch.zeros(2, 3, 4, 4), bare.space.parse("conv3x3:0+output:1")).shape == (2, 10)
