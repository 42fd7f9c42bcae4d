from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import pynas
from pynas import spaces
from pynas.nn import NASBench201Supernet
from pynas.supernet import CellWeights, SharedWeights, SPOSSupernet, build

SMALL = {
    "nasbench101": (spaces.NASBench101(channels=5, num_stacks=2, num_cells=2), {}),
    "nasbench201": (spaces.NASBench201(channels=4, num_cells=1), {}),
    "darts_cnn": (spaces.DARTSCNN(channels=4, num_cells=3), {}),
    "spos_shufflenet": (spaces.SPOSShuffleNet(), {"width": 0.1}),
    "proxylessnas": (
        spaces.ProxylessNAS(widths="4-4-8-8-8-8", stem_channels=4, first_channels=4, last_channels=16),
        {},
    ),
    "template": (spaces.TemplateSpace(template="digits"), {}),
}


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest, one_thread: None) -> SharedWeights:
    space, options = SMALL[request.param]
    torch.manual_seed(0)
    return build(space, 5, **options)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_selecting_is_naming(model: SharedWeights) -> None:
    model.eval()
    rng = random.Random(0)
    one, other = (model.space.sample(rng) for _ in range(2))
    model.select(one)
    assert torch.equal(model(images()), model(images(), one))
    assert not torch.equal(model(images()), model(images(), other))
    assert model(images()).shape == (4, 5)
    model.select(None)
    with pytest.raises(pynas.UserError, match="arch"):
        model(images())
    with pytest.raises(pynas.UserError):
        model.select(pynas.Architecture("none_such", (0,)))


@pytest.mark.slow
def test_equal_keys_compute_the_same(model: SharedWeights) -> None:
    model.eval()
    rng = random.Random(0)
    shared = []
    for _ in range(20):
        one = model.space.sample(rng)
        other = model.space.mutate(one, rng)
        x = y = images(2)
        prefix = 0
        for a, b in zip(model.segments(one), model.segments(other), strict=True):
            if a.key != b.key:
                break
            prefix += 1
            x, y = a.run(x), b.run(y)
            for left, right in zip(*(s if isinstance(s, tuple) else (s,) for s in (x, y)), strict=True):
                assert torch.equal(left, right)
        shared.append(prefix)
        assert prefix >= 1  # the stem
        assert len({s.key for s in model.segments(one)[-1:]}) == 1
    if model.space.name not in ("nasbench101", "nasbench201"):  # all decisions are in the first cell
        assert max(shared) >= 2


@pytest.mark.slow
def test_segments_run_all_that_trains(model: SharedWeights) -> None:
    arch = model.space.sample(random.Random(3))
    model.train()
    model(images(), arch).square().sum().backward()
    ran = {id(p) for s in model.segments(arch) for m in s.modules for p in m.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.any():
            assert id(parameter) in ran, name


@pytest.mark.slow
def test_a_new_classifier(model: SharedWeights) -> None:
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(0)
    model.reset_classifier(7)
    arch = model.space.sample(random.Random(0))
    assert model(images(), arch).shape == (4, 7)
    changed = {name for name, t in model.state_dict().items() if t.shape != before[name].shape}
    assert {name.rsplit(".", 1)[0] for name in changed} == {
        name for name, m in model.named_modules() if m is model.classifier()
    }
    assert sum(p.numel() for p in model.classifier_parameters()) in (
        7 * model.classifier().in_features,
        7 * (model.classifier().in_features + 1),
    )
    assert float(model.classifier().weight.detach().std()) == pytest.approx(0.01, rel=0.3)
    with pytest.raises(pynas.UserError, match="num_classes"):
        model.reset_classifier(0)


@pytest.mark.slow
def test_spos_is_the_network_of_the_space_at_full_width(one_thread: None) -> None:
    space = spaces.SPOSShuffleNet()
    arch = space.sample(random.Random(5))
    torch.manual_seed(0)
    supernet, plain = SPOSSupernet(space, 5, affine=True).eval(), space.build(arch, 5).eval()
    theirs = {}
    for name, tensor in plain.state_dict().items():
        parts = name.split(".")
        if parts[0] == "features":
            parts.insert(2, str(arch.decisions[int(parts[1])]))
        theirs[".".join(parts)] = tensor
    missing, unexpected = supernet.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert missing
    assert all(name.startswith("features.") for name in missing)
    x = images(2).repeat(1, 1, 2, 2)
    torch.testing.assert_close(supernet(x, arch), plain(x), rtol=1e-5, atol=1e-6)
    bare = SPOSSupernet(space, 5)
    assert not any(p.dim() == 1 for p in bare.parameters())


@pytest.mark.slow
def test_proxyless_is_the_network_of_the_space(one_thread: None) -> None:
    space, _ = SMALL["proxylessnas"]
    arch = space.sample(random.Random(5))
    assert 6 in arch.decisions
    torch.manual_seed(0)
    supernet, plain = build(space, 5).eval(), space.build(arch, 5).eval()
    theirs = {}
    for name, tensor in plain.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["blocks", "0"]:
            parts[:2] = ["first_block"]
        elif parts[0] == "blocks":
            place = int(parts[1]) - 1
            parts[1:2] = [str(place), str(arch.decisions[place])]
        theirs[".".join(parts)] = tensor
    _, unexpected = supernet.load_state_dict(theirs, strict=False)
    assert not unexpected
    torch.testing.assert_close(supernet(images(), arch), plain(images()), rtol=1e-5, atol=1e-6)


def test_nasbench201_is_its_supernet(one_thread: None) -> None:
    network = NASBench201Supernet(4, 1).eval()
    model = CellWeights(network)
    assert (model.space.channels, model.space.num_cells) == (4, 1)  # type: ignore[attr-defined]
    arch = model.space.sample(random.Random(0))
    assert torch.equal(model(images(), arch), network(images(), arch))


def test_refusals() -> None:
    with pytest.raises(pynas.UserError, match="no supernet of mbv2_zico"):
        build(spaces.get("mbv2_zico"))
    with pytest.raises(pynas.UserError, match="network"):
        CellWeights(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(pynas.UserError, match="space"):
        CellWeights(NASBench201Supernet(4, 1), spaces.DARTSCNN())
    with pytest.raises(pynas.UserError, match="width"):
        SPOSSupernet(width=0)
