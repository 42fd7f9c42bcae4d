"""Supernets of templates: paths with the bits of the network alone, mixtures, fused layers, training."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pynas
from pynas import spaces
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import template
from pynas.spaces.template import Block, Layer, Template, TemplateSpace
from pynas.supernet import (
    Differentiable,
    FairSampler,
    SinglePath,
    SubnetEvaluator,
    TemplateSupernet,
    Trainer,
    TrainingOptions,
    UniformSampler,
    build,
)
from tests.spaces.designs import THIN

pytestmark = pytest.mark.usefixtures("one_thread")

MANY = Template(
    (
        Layer((Block("conv"), Block("identity"), Block("conv"), Block("conv", channels=8)), "first"),
        Layer(
            (
                Block("conv", channels=12, norm="group"),
                Block("residual", channels=12, norm="none", activation="gelu"),
                Block("separable", channels=12, padding="valid", kernel=1),
            )
        ),
        Layer((Block("pool", stride=2), Block("shuffle", stride=2), Block("dense", stride=2))),
    ),
    stem=Block("vgg", channels=8),
    image_size=8,
)

DESIGNS = {
    "example": template.example().replace(image_size=8),
    "thin": THIN,
    "fused": template.fused().replace(image_size=16),
    "many": MANY,
}


def supernet(name: str, classes: int = 5, **options: Any) -> TemplateSupernet:
    """In float64, with running statistics that are not the initial ones."""
    torch.manual_seed(0)
    space = TemplateSpace(template=DESIGNS[name])
    model = TemplateSupernet(space, classes, **options).double().train()
    with torch.no_grad():
        for seed in range(8):
            model(images(model, seed), space.sample(random.Random(seed)))
    return model


def images(model: TemplateSupernet, seed: int = 0, count: int = 4) -> torch.Tensor:
    size = model.space.image_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_a_path_is_the_network_alone(name: str) -> None:
    model = supernet(name)
    for seed in range(6):
        arch = model.space.sample(random.Random(seed))
        alone = model.standalone(arch)
        fresh = model.space.build(arch, 5).double()
        assert {k: t.shape for k, t in alone.state_dict().items()} == {
            k: t.shape for k, t in fresh.state_dict().items()
        }
        assert repr(alone) == repr(fresh)
        x = images(model, seed)
        for training in (False, True):
            one = copy.deepcopy(model).train(training)
            other = copy.deepcopy(alone).train(training)
            y = other(x)
            assert torch.equal(one(x, arch), y)  # the bits
            y.square().sum().backward()
            one(x, arch) if training else None
            one.zero_grad()
        one(x, arch).square().sum().backward()
        gradients = [p.grad for p in one.parameters() if p.grad is not None]
        assert sum(float(g.square().sum()) for g in gradients) == pytest.approx(
            sum(float(p.grad.square().sum()) for p in other.parameters() if p.grad is not None)
        )


@pytest.mark.parametrize("name", DESIGNS)
def test_mixtures_are_sums_of_alternatives(name: str) -> None:
    """Against a plain loop over modules of the alternatives, in values and gradients; hard ones are paths."""
    model = supernet(name).eval()
    network = model.network
    weights = tuple(
        torch.rand(1, k, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i, k in enumerate(model.space.num_choices)
    )
    x = images(model).requires_grad_()

    def loop(x: torch.Tensor) -> torch.Tensor:
        y = network.stem(x)
        for layer, row in zip(network.layers, weights, strict=True):
            assert isinstance(layer, nn.Module)
            y = sum(row[0, k] * layer.alternative(k)(y) for k in range(row.shape[1]))  # type: ignore[operator]
        return network.head(y)

    for training in (False, True):
        model.train(training)
        wanted = (x, *weights, *network.weight_parameters())
        found, expected = network(x, weights), loop(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        ours = torch.autograd.grad(found.square().sum(), wanted, allow_unused=True)
        theirs = torch.autograd.grad(expected.square().sum(), wanted, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * max(1.0, float(b.abs().max())))
    model.eval()
    arch = model.space.sample(random.Random(2))
    torch.testing.assert_close(network(x, arch), model(x, arch), rtol=1e-10, atol=1e-10)
    exported = network.export(arch)
    torch.testing.assert_close(exported(x), model(x, arch), rtol=1e-10, atol=1e-10)


def test_what_is_not_chosen_does_not_run() -> None:
    model = supernet("fused")
    arch = Architecture("template", (3, 0, 6, 4))  # without parameters, but for the layer without a choice
    before = copy.deepcopy(model.state_dict())
    model.network(images(model), arch)
    changed = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    assert {name.rsplit(".", 1)[0] for name in changed} == {
        "network.stem.1",
        "network.layers.1.choices.0.2",
        "network.layers.3.choices.4.1",
    }


def test_which_layers_are_fused() -> None:
    assert supernet("fused").fused() == ((True,) * 4, (False,), (True,) * 7, (True,) * 6)
    assert supernet("fused", affine=False).fused() == supernet("fused").fused()
    assert supernet("thin").fused() == ((False,) * 4, (False,) * 2, (False,) * 4, (False,) * 3)
    assert supernet("example").fused()[4] == (False, False, True, True)  # the mean and the identity
    one_known = TemplateSpace(template=Template((Layer((Block("conv"), Block("identity"))),)))
    assert TemplateSupernet(one_known).fused() == ((False, False),)


def test_equal_alternatives_share_their_weights() -> None:
    model = supernet("many").eval()
    x = images(model)
    (first,) = {id(model._layers()[0].alternative(k)) for k in (0, 2, 3)}
    assert first != id(model._layers()[0].alternative(1))
    archs = [Architecture("template", (k, 1, 1)) for k in (0, 2, 3)]
    assert len({model.segments(a)[1].key for a in archs}) == 1
    assert all(torch.equal(model(x, a), model(x, archs[0])) for a in archs)
    weights = model.network.choose(archs[0])
    spread = (torch.tensor([[0.25, 0.0, 0.25, 0.5]], dtype=torch.float64), *weights[1:])
    torch.testing.assert_close(model.network(x, spread), model.network(x, weights), rtol=1e-12, atol=1e-12)
    nothing = (torch.zeros_like(weights[0]), *weights[1:])
    assert model.network(x, nothing).shape == (4, 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "fair", "softmax", "gumbel_hard"])
def test_training_learns(method: str) -> None:
    """Two classes that are told apart by their mean."""
    space = TemplateSpace(template="digits")
    torch.manual_seed(0)
    model = build(space, 2)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (128,), generator=generator)
    x = torch.randn(128, 3, 8, 8, generator=generator) + targets[:, None, None, None]
    how: Any = {
        "uniform": SinglePath(UniformSampler(space)),
        "fair": SinglePath(FairSampler(space)),
    }.get(method) or Differentiable(method)  # type: ignore[arg-type]
    options = TrainingOptions(steps=40, batch_size=32, learning_rate=0.1)
    result = Trainer(model, x, targets, how, options).train()
    assert sum(result.accuracies[-10:]) / 10 > 0.85
    if method in ("uniform", "fair"):
        evaluate = SubnetEvaluator(model, x, targets, calibration=x.split(64))
        scores = evaluate([space.sample(random.Random(i)) for i in range(5)])
        assert min(score.accuracy for score in scores) > 0.8
    else:
        assert isinstance(model, TemplateSupernet)
        space.check(model.network.derive())


def tiny(design: Template, folder: Path | None, steps: int = 4, sampler: Any = None) -> Trainer:
    space = TemplateSpace(template=design)
    torch.manual_seed(0)
    model = build(space, 2)
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    method = sampler or SinglePath(UniformSampler(space))
    options = TrainingOptions(steps=8, batch_size=8)

    def stop(step: Any) -> None:
        if step.number + 1 == steps:
            raise KeyboardInterrupt

    return Trainer(
        model, x, torch.arange(16) % 2, method, options, checkpoints=folder, checkpoint_every=1, on_step=stop
    )


def test_a_training_resumes_on_its_own_template_only(tmp_path: Path) -> None:
    design = THIN
    with pytest.raises(KeyboardInterrupt):
        tiny(design, tmp_path).train()
    other = design.set(0, 0, activation="silu")  # with the same tensors
    with pytest.raises(
        UserError, match=r"holds a training with another template: [0-9a-f]{16}, here [0-9a-f]{16};"
    ):
        tiny(other, tmp_path, 99).train(resume=True)
    resumed = tiny(design.rename_layer(0, "another name"), tmp_path, 99).train(resume=True)
    assert resumed.resumed_from >= 3
    assert resumed.losses == tiny(design, None, 99).train().losses


def test_samplers_of_another_template_are_refused() -> None:
    design = THIN
    other = TemplateSpace(template=design.set(0, 0, activation="silu"))
    with pytest.raises(UserError, match="sampler: expected one for the template of the model"):
        tiny(design, None, sampler=SinglePath(UniformSampler(other)))
    part = spaces.subset(other, list(other.all())[:5])
    with pytest.raises(UserError, match="give it the model's space, or a subset of that"):
        tiny(design, None, sampler=SinglePath(UniformSampler(part)))
    own = TemplateSpace(template=design)
    tiny(design, None, 99, SinglePath(UniformSampler(spaces.subset(own, list(own.all())[:5])))).train()


def test_a_training_on_a_part_resumes_on_that_part_only(tmp_path: Path) -> None:
    space = TemplateSpace(template=THIN)
    archs = list(space.all())
    samplers = [SinglePath(UniformSampler(spaces.subset(space, archs[:k]))) for k in (5, 6)]
    with pytest.raises(KeyboardInterrupt):
        tiny(THIN, tmp_path, 2, samplers[0]).train()
    with pytest.raises(UserError, match="holds a training with another subset"):
        tiny(THIN, tmp_path, 99, samplers[1]).train(resume=True)


def test_weights_are_inherited() -> None:
    old = supernet("thin")
    with torch.no_grad():
        old.network.alpha_2[0, 1] = 3.0  # type: ignore[index]
    design = (
        THIN.remove_alternative(0, 1).set(1, 0, kernel=5).add_alternative(2, Block("vgg"), 0).move_layer(2, 0)
    )
    # "middle" reads 8 channels now, so nothing of it computes what it did.
    moved = TemplateSupernet(TemplateSpace(template=design), 5).double()
    assert set(moved.inherit(old)) == {(0, k) for k in range(4)} | {(2, 0)}
    pruned = THIN.remove_alternative(0, 1).add_alternative(2, Block("vgg"), 0).rename_layer(1, "x")
    new = TemplateSupernet(TemplateSpace(template=pruned), 5).double()
    assert new.inherit(old) == ((2, 0),)
    assert new.network.alpha_2[0, 2].item() == 3.0  # type: ignore[index]
    x = images(old)
    pairs = [((0, 0, 1, 2), (0, 0, 0, 2)), ((1, 1, 3, 0), (2, 1, 2, 0))]
    for ours, theirs in pairs:
        a, b = Architecture("template", ours), Architecture("template", theirs)
        assert new.space.format(a) == old.space.format(b)
        assert torch.equal(new.eval()(x, a), old.eval()(x, b))
    wider = TemplateSupernet(TemplateSpace(template=pruned.set_stem(channels=10)), 7).double()
    assert wider.inherit(old)[:2] == ((-1, 0), (-1, 1))
    with pytest.raises(UserError, match="other: expected a TemplateSupernet"):
        new.inherit(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_options_and_refusals() -> None:
    space = TemplateSpace(template=THIN)
    bare = build(space, 3, 1, affine=False)
    assert isinstance(bare, TemplateSupernet)
    assert not any(m.affine for m in bare.modules() if isinstance(m, nn.BatchNorm2d))
    arch = space.sample(random.Random(0))
    x = torch.randn(2, 1, 8, 8)
    bare.eval()
    assert torch.equal(bare(x, arch), bare.standalone(arch)(x))
    bare.reset_classifier(4)
    assert bare.standalone(arch)(x).shape == bare(x, arch).shape == (2, 4)
    assert TemplateSupernet().space.template == TemplateSpace().template
    with pytest.raises(UserError, match="space: expected template, got nasbench201"):
        TemplateSupernet(spaces.NASBench201())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="architecture: expected an Architecture"):
        bare.network.choose("conv")
    with pytest.raises(pynas.UserError):
        bare.network.choose(Architecture("template", (9, 0, 0, 0)))
