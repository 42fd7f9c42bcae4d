from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn

import pynas
from pynas import spaces
from pynas.supernet import SharedWeights, build
from pynas.supernet.evaluation import SubnetEvaluator, weights_version

pytestmark = pytest.mark.slow

SPACES = {
    "nasbench101": (spaces.NASBench101(channels=5, num_stacks=2, num_cells=1), {}),
    "nasbench201": (spaces.NASBench201(channels=4, num_cells=1), {}),
    "darts_cnn": (spaces.DARTSCNN(channels=4, num_cells=3), {}),
    "spos_shufflenet": (spaces.SPOSShuffleNet(), {"width": 0.1}),
}


def images(count: int, seed: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def labels(count: int) -> Tensor:
    return torch.arange(count) % 7


@pytest.fixture(params=SPACES)
def model(request: pytest.FixtureRequest, one_thread: None) -> SharedWeights:
    space, options = SPACES[request.param]
    torch.manual_seed(0)
    return build(space, 7, **options)


def family(space: spaces.SearchSpace, count: int) -> list[pynas.Architecture]:
    rng = random.Random(1)
    found = [space.sample(rng)]
    while len(found) < count:
        found.append(space.mutate(rng.choice(found), rng))
    return found


def settle(model: SharedWeights, archs: list[pynas.Architecture]) -> None:
    """Running statistics that are somebody's; those of a new supernet let signals die away."""
    norms = [(m, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm, _ in norms:
        norm.momentum = 0.9
    for seed, arch in enumerate(archs):
        model.train()(images(8, 50 + seed), arch)
    for norm, momentum in norms:
        norm.momentum = momentum


def alone(
    model: SharedWeights, arch: pynas.Architecture, calibration: list[Tensor] | None, x: Tensor, y: Tensor
) -> tuple[float, float, float]:
    """Plainly: statistics reset, cumulative means over the batches, one forward pass."""
    net = copy.deepcopy(model).eval()
    if calibration is not None:
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
        with torch.no_grad():
            for batch in calibration:
                net(batch, arch)
    net.eval()
    with torch.no_grad():
        logits = net(x, arch).double()
    ranks = logits.argsort(1, descending=True)
    top = (ranks == y[:, None]).double()
    loss = -(logits.log_softmax(1).gather(1, y[:, None])).mean()
    return float(top[:, 0].mean()), float(top[:, :5].sum(1).mean()), float(loss)


@pytest.mark.parametrize("recalibrate", [True, False])
def test_scores_are_those_of_one_at_a_time(model: SharedWeights, recalibrate: bool) -> None:
    archs = family(model.space, 4)
    settle(model, archs)
    x, y = images(13, 2), labels(13)
    calibration = [images(6, 3), images(5, 4)] if recalibrate else None
    evaluate = SubnetEvaluator(model, x, y, calibration=calibration, batch_size=8, group_size=3)
    for arch, score in zip(archs, evaluate(archs), strict=True):
        expected = alone(model, arch, calibration, x, y)
        assert (score.accuracy, score.top5) == pytest.approx(expected[:2])
        assert score.loss == pytest.approx(expected[2], rel=1e-5)


def test_the_supernet_stays_as_it_was(model: SharedWeights) -> None:
    model.train()
    model.classifier().eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    places = {name: t.data_ptr() for name, t in model.named_buffers()}
    SubnetEvaluator(model, images(4, 0), labels(4), calibration=[images(4, 1)])(family(model.space, 3))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert {name: t.data_ptr() for name, t in model.named_buffers()} == places
    assert model.training
    assert not model.classifier().training
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = 0.003 if model.space.name == "nasbench101" else 0.1
    assert all(norm.training and norm.momentum == momentum for norm in norms)


def test_common_beginnings_run_once(one_thread: None) -> None:
    space, options = SPACES["spos_shufflenet"]
    model = build(space, 7, **options)
    first = space.sample(random.Random(0))
    last = first.decisions[-1]
    archs = [pynas.Architecture(space.name, (*first.decisions[:-1], (last + i) % 4)) for i in range(4)]
    evaluate = SubnetEvaluator(model, images(4, 0), labels(4), calibration=[images(4, 1)])
    evaluate([*archs, archs[0]])
    # Stem and 19 blocks once, then the last block and the head of each; once to calibrate, once to evaluate.
    assert evaluate.segments_run == 2 * (20 + 4 * 2)


def test_scores_are_kept_until_a_weight_changes(one_thread: None) -> None:
    space, options = SPACES["nasbench201"]
    model = build(space, 7, **options)
    archs = family(space, 3)
    evaluate = SubnetEvaluator(model, images(9, 0), labels(9), calibration=[images(8, 1)], cache_size=3)
    first = evaluate(archs)
    ran = evaluate.segments_run
    assert evaluate(archs[::-1]) == first[::-1]
    assert evaluate.segments_run == ran
    model.classifier().weight.data.mul_(3)  # which no version counter of torch sees
    assert evaluate(archs) != first
    assert evaluate.segments_run == 2 * ran
    evaluate(family(space, 6)[3:])
    evaluate(archs)  # the cache holds three
    assert evaluate.segments_run > 3 * ran


def test_the_version_is_of_the_bytes(one_thread: None) -> None:
    model = build(*SPACES["nasbench201"][:1], 7)
    version = weights_version(model)
    assert weights_version(copy.deepcopy(model)) == version
    model.train()(images(4, 0), model.space.sample(random.Random(0)))
    assert weights_version(model) != version  # running statistics
    assert weights_version(model, buffers=False) == weights_version(copy.deepcopy(model), buffers=False)


def test_losses_that_are_not_finite_stay_with_their_architecture(one_thread: None) -> None:
    space, options = SPACES["spos_shufflenet"]
    model = build(space, 7, **options)
    one = pynas.Architecture(space.name, (0,) * 20)
    other = pynas.Architecture(space.name, (*one.decisions[:-1], 1))
    with torch.no_grad():
        next(model.features[-1][1].parameters()).fill_(float("nan"))
    evaluate = SubnetEvaluator(model, images(4, 0), labels(4), calibration=[images(4, 1)])
    bad, good = evaluate([other, one])
    assert bad.loss != bad.loss
    assert good.loss == good.loss


def test_refusals(one_thread: None) -> None:
    model = build(SPACES["nasbench201"][0], 7)
    with pytest.raises(pynas.UserError, match="inputs, targets"):
        SubnetEvaluator(model, images(4, 0), labels(3))
    with pytest.raises(pynas.UserError, match="calibration"):
        SubnetEvaluator(model, images(4, 0), labels(4), calibration=[images(1, 0)])
    with pytest.raises(pynas.UserError, match="batch_size"):
        SubnetEvaluator(model, images(4, 0), labels(4), batch_size=0)
    with pytest.raises(pynas.UserError):
        SubnetEvaluator(model, images(4, 0), labels(4))([pynas.Architecture("nasbench201", (9,) * 6)])
