"""Groups, stand-alone training and whole studies, tiny."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pynas import Architecture, spaces
from pynas._errors import UserError
from pynas.analysis import operations
from pynas.analysis.groups import ChildSampler, GroupedWeights, partition
from pynas.analysis.standalone import ground_truth, train_alone
from pynas.analysis.study import Sharing, Study
from pynas.analysis.tasks import ImageTask
from pynas.supernet import SinglePath, Trainer, TrainingOptions, build
from pynas.supernet.evaluation import SubnetEvaluator, SubnetScore

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

SPACE = spaces.NASBench201(channels=4, num_cells=1)
RNG = random.Random(0)
CHILDREN = tuple(SPACE.sample(RNG) for _ in range(5))
FAST = TrainingOptions(steps=6, batch_size=16, learning_rate=0.1)


@pytest.fixture(scope="module")
def task() -> ImageTask:
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(96) % 4
    inputs = torch.randn(96, 3, 8, 8, generator=rng) + 2 * targets[:, None, None, None]
    return ImageTask(inputs[:64], targets[:64], inputs[64:], targets[64:], 4, "steps of brightness")


@pytest.mark.parametrize("how", ["sequential", "shuffled", "similar"])
def test_groups_are_of_nearly_one_size(how: str) -> None:
    for groups in (1, 2, 3, 5):
        sizes = np.bincount(partition(SPACE, CHILDREN, groups, how, seed=1))  # type: ignore[arg-type]
        assert len(sizes) == groups
        assert sizes.max() - sizes.min() <= 1


def test_similar_architectures_come_into_one_group() -> None:
    near = [Architecture("nasbench201", (0, 0, 0, 0, 0, last)) for last in (0, 1, 2)]
    far = [Architecture("nasbench201", (4, 4, 4, 4, 4, last)) for last in (4, 3, 2)]
    mixed = [near[0], far[0], near[1], far[1], near[2], far[2]]
    assert partition(SPACE, mixed, 2, "similar") == (0, 1, 0, 1, 0, 1)
    assert partition(SPACE, mixed, 2, "sequential") == (0, 1, 0, 1, 0, 1)
    # In order of decisions the first two would be together, but the last differs in one decision only.
    chain = [
        Architecture("nasbench201", d) for d in ((0, 0, 0, 0, 0, 0), (0, 4, 4, 4, 4, 4), (1, 0, 0, 0, 0, 0))
    ]
    assert partition(SPACE, chain, 2, "sequential") == (0, 1, 1)
    assert partition(SPACE, [*chain, chain[1]], 2, "similar") == (0, 1, 0, 1)


def test_training_one_group_leaves_the_others_alone(task: ImageTask) -> None:
    torch.manual_seed(0)
    groups = {arch: i % 2 for i, arch in enumerate(CHILDREN)}
    model = GroupedWeights(build(SPACE, 4), groups, prefix=2)
    first, second = model.copies
    before = {name: p.detach().clone() for name, p in first.named_parameters()}
    assert all(torch.equal(p, before[name]) for name, p in second.named_parameters())
    mine = [arch for arch in CHILDREN if groups[arch] == 1]
    Trainer(model, task.inputs, task.targets, SinglePath(ChildSampler(SPACE, mine)), FAST).train()
    changed = {name for name, p in first.named_parameters() if not torch.equal(p, before[name])}
    common = ("network.stem", "network.cells.0")  # stem and first cell, the two common segments
    assert changed
    assert all(name.startswith(common) for name in changed)
    moved = {name for name, p in second.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith(common) for name in moved)
    with pytest.raises(UserError, match="arch: expected one that belongs to a group"):
        model(task.inputs, SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))


def test_keys_of_groups_differ_after_the_common_part(task: ImageTask) -> None:
    arch, *_ = CHILDREN
    other = next(c for c in CHILDREN if c != arch)
    model = GroupedWeights(build(SPACE, 4), {arch: 0, other: 1}, prefix=1)
    a, b = (model.segments(x) for x in (arch, other))
    assert a[0].key == b[0].key
    assert all(x.key != y.key for x, y in zip(a[1:], b[1:], strict=True))
    model.eval()
    alone = model.copies[0]
    assert torch.equal(model(task.inputs, arch), alone(task.inputs, arch))


def test_operations_are_counted() -> None:
    cell = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|")
    assert operations.operations(SPACE, cell) == {"none": 3, "nor_conv_3x3": 2, "skip_connect": 1}
    counts = operations.operation_counts(SPACE, [cell, *CHILDREN])
    assert sum(counts.values()).tolist() == [6.0] * 6  # type: ignore[union-attr]
    for name in ("spos_shufflenet", "proxylessnas", "darts_cnn", "nasbench101", "nats_size", "mbv2_zico"):
        space = spaces.get(name)
        arch = space.sample(random.Random(1))
        assert sum(operations.operations(space, arch).values()) > 0
    chain = spaces.get("proxylessnas")
    text = chain.format(arch := chain.sample(random.Random(1)))
    assert operations.operations(chain, arch)["Zero"] == text.count("Zero")


def test_training_alone_learns_and_depends_on_the_seed_alone(task: ImageTask) -> None:
    arch = SPACE.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    options = TrainingOptions(steps=40, batch_size=32, learning_rate=0.1)
    state = torch.get_rng_state()
    right = train_alone(SPACE, arch, task, options)
    assert torch.equal(torch.get_rng_state(), state)
    assert right > 60  # chance is 25
    torch.manual_seed(99)
    assert train_alone(SPACE, arch, task, options) == right


def test_the_ground_truth_is_cached_and_half_a_line_is_forgiven(
    task: ImageTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "alone.jsonl"
    found = ground_truth(SPACE, CHILDREN[:2], task, FAST, repeats=2, cache=cache)
    assert found.shape == (2, 2)
    assert len(cache.read_text().splitlines()) == 4
    trained = []

    def train(*arguments: object) -> float:
        trained.append(arguments)
        return 1.0

    monkeypatch.setattr("pynas.analysis.standalone.train_alone", train)
    again = ground_truth(SPACE, CHILDREN[:2], task, FAST, repeats=2, cache=cache)
    assert np.array_equal(again, found)
    assert trained == []
    cache.write_text(cache.read_text()[:-20])
    ground_truth(SPACE, CHILDREN[:2], task, FAST, repeats=2, cache=cache)
    assert len(trained) == 1
    ground_truth(SPACE, CHILDREN[:2], task, FAST, repeats=2, cache=cache)
    assert len(trained) == 1
    wider = spaces.NASBench201(channels=8, num_cells=1)  # the same decisions, other networks
    ground_truth(wider, CHILDREN[:2], task, FAST, repeats=1, cache=cache)
    assert len(trained) == 3


def study(task: ImageTask, folder: Path, **changes: object) -> Study:
    settings = {"seeds": 2, "checkpoints": 2, "checkpoint_every": 3, "calibration": 64} | changes
    return Study(SPACE, CHILDREN, task, FAST, folder, calibration_batch=32, **settings)  # type: ignore[arg-type]


def test_a_study_goes_on_where_it_was(
    task: ImageTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = Sharing(groups=2, prefix=1)
    found = study(task, tmp_path).estimates(sharing, ("running", "recalibrated"))
    assert {kind: values.shape for kind, values in found.items()} == {
        "running": (2, 2, 5),
        "recalibrated": (2, 2, 5),
    }
    assert not np.array_equal(found["running"], found["recalibrated"])
    folder = tmp_path / f"{sharing.name.replace(', ', ' ').replace(' ', '-')}-seed-0"
    kept = folder / "estimates-6-running.json"
    record = json.loads(kept.read_text())
    assert record["estimates"] == found["running"][0, 1].tolist()
    kept.unlink()
    judged: list[Architecture] = []
    original = SubnetEvaluator.__call__

    def noting(self: SubnetEvaluator, architectures: Sequence[Architecture]) -> list[SubnetScore]:
        judged.extend(architectures)
        return original(self, architectures)

    monkeypatch.setattr(SubnetEvaluator, "__call__", noting)
    again = study(task, tmp_path).estimates(sharing, ("running", "recalibrated"))
    assert all(np.array_equal(again[kind], found[kind]) for kind in found)
    assert len(judged) == 5  # only what was lost
    with pytest.raises(UserError, match="holds 2, fewer than 3"):
        study(task, tmp_path, checkpoints=3).estimates(sharing)


def test_recalibration_is_the_statistics_of_the_sub_network_and_leaves_no_trace(
    task: ImageTask, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = build(SPACE, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = study(task, tmp_path, calibration=64)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    stem = next(m for m in model.network.stem.modules() if isinstance(m, nn.BatchNorm2d))  # type: ignore
    seen = {}

    def spy(norm: nn.Module, *_: object) -> None:
        if not norm.training:
            seen["mean"] = stem.running_mean.clone()  # type: ignore[union-attr]

    hook = stem.register_forward_hook(spy)
    one.judge(model, "recalibrated")
    hook.remove()
    conv = next(m for m in model.network.stem.modules() if isinstance(m, nn.Conv2d))  # type: ignore
    assert torch.allclose(seen["mean"], conv(task.inputs).mean((0, 2, 3)), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(norm.momentum is not None for norm in norms)
    assert model.training


def test_bad_input(task: ImageTask) -> None:
    with pytest.raises(UserError, match="groups: expected 1 to 5"):
        partition(SPACE, CHILDREN, 6, "shuffled")
    with pytest.raises(UserError, match="prefix: expected a number of segments in 0"):
        GroupedWeights(build(SPACE, 4), {CHILDREN[0]: 0}, prefix=99)
    with pytest.raises(UserError, match="groups: expected group numbers from 0 without gaps"):
        GroupedWeights(build(SPACE, 4), {CHILDREN[0]: 1})
    with pytest.raises(UserError, match="children: expected at least one"):
        ChildSampler(SPACE, [])
    with pytest.raises(UserError, match="batch_size: expected at most 64 training samples, got 65"):
        train_alone(SPACE, CHILDREN[0], task, TrainingOptions(batch_size=65))
