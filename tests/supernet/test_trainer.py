from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from supernet_training import SPACE, STEPS, Linears, digits, together, trainer
from torch import nn

from pynas import UserError, data, spaces
from pynas.nn import DARTSSupernet, NASBench201Supernet, Supernet
from pynas.supernet import (
    CellWeights,
    CheckpointFolder,
    Differentiable,
    FairSampler,
    FlopsBinSampler,
    Method,
    SinglePath,
    Trainer,
    TrainingOptions,
    TrainingStep,
    UniformSampler,
    build,
)
from pynas.supernet._second_order import second_order_gradient

SCRIPT = Path(__file__).with_name("supernet_training.py")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[nn.Module, tuple[float, ...]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = trainer(None)
    result = whole.train()
    torch.set_num_threads(threads)
    return whole.model, result.losses


# ---- killed ---------------------------------------------------------------------------------------------


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path: Path, uninterrupted: Any) -> None:
    folder = tmp_path / "checkpoints"
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen([*command, "train", str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 4:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    assert CheckpointFolder(folder).steps()[0] == 3
    second = subprocess.run(
        [*command, "die-while-saving", str(folder)], capture_output=True, text=True, check=False
    )
    assert second.returncode == -signal.SIGKILL, second.stderr
    assert CheckpointFolder(folder).steps()[-1] == 6
    assert list(folder.glob(".*.partial"))  # it did not get to the end of writing
    last = trainer(folder)
    result = last.train(resume=True)
    model, losses = uninterrupted
    assert result.resumed_from == 6
    assert result.losses == losses
    assert len(losses) == STEPS
    assert same(last.model, model)


def _interrupted(make: Callable[..., Trainer], folder: Path, at: int) -> Trainer:
    def stop(step: TrainingStep) -> None:
        if step.number == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(folder, stop).train()
    again = make(folder)
    assert again.train(resume=True).resumed_from == at
    return again


METHODS: dict[str, Callable[[], Method]] = {
    "fair": lambda: SinglePath(FairSampler(SPACE)),
    "flops": lambda: SinglePath(FlopsBinSampler(SPACE, image_size=8)),
    "softmax": lambda: Differentiable(learning_rate=0.01),
    "second order": lambda: Differentiable(order=2, learning_rate=0.01),
    "gumbel_hard": lambda: Differentiable("gumbel_hard", learning_rate=0.01, temperature=(10, 0.1)),
    "warm-up": lambda: Differentiable(learning_rate=0.01, warm_up=0.5),  # the checkpoint has no Adam yet
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes(name: str, tmp_path: Path) -> None:
    options = TrainingOptions(steps=5, batch_size=16, learning_rate=0.05, label_smoothing=0.1, warm_up=2)

    def make(folder: Path | None, on_step: Any = None) -> Trainer:
        torch.manual_seed(0)
        return Trainer(
            build(SPACE),
            *digits(),
            METHODS[name](),
            options,
            checkpoints=folder,
            checkpoint_every=2,
            on_step=on_step,
        )

    whole = make(None)
    start = {k: t.clone() for k, t in whole.model.state_dict().items()}
    whole.train()
    alpha = "network.arch_parameters"
    assert torch.equal(start[alpha], whole.model.state_dict()[alpha]) == (name in ("fair", "flops"))
    assert same(_interrupted(make, tmp_path / "folder", 2).model, whole.model)


def test_dropout_and_another_network_resume(tmp_path: Path) -> None:
    space = spaces.SPOSShuffleNet(dropout=0.5)

    def make(folder: Path | None, on_step: Any = None) -> Trainer:
        torch.manual_seed(0)
        model = build(space, width=0.1)
        options = TrainingOptions(steps=4, batch_size=4, decay="linear", clip=None)
        method = SinglePath(UniformSampler(space))
        inputs, targets = digits()
        return Trainer(
            model,
            inputs.repeat(1, 1, 4, 4),
            targets,
            method,
            options,
            checkpoints=folder,
            checkpoint_every=2,
            on_step=on_step,
        )

    whole = make(None)
    whole.train()
    assert same(_interrupted(make, tmp_path / "folder", 2).model, whole.model)


# ---- damaged, refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path, uninterrupted: Any) -> None:
    folder = tmp_path / "checkpoints"
    trainer(folder).train()
    checkpoints = CheckpointFolder(folder)
    assert checkpoints.steps() == [12, 14]
    raw = bytearray(checkpoints.path(14).read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "flipped":
        raw[-100] ^= 1
    else:
        raw = bytearray()
    checkpoints.path(14).write_bytes(raw)
    again = trainer(folder)
    result = again.train(resume=True)
    assert result.resumed_from == 12
    assert len(result.damaged) == 1
    assert "step-00000014" in result.damaged[0]
    assert same(again.model, uninterrupted[0])
    assert checkpoints.load(14).step == 14  # written anew
    for step in checkpoints.steps():
        checkpoints.path(step).write_bytes(raw)
    with pytest.raises(UserError, match="no checkpoint is intact"):
        trainer(folder).train(resume=True)


def test_a_renamed_checkpoint_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    trainer(folder).train()
    checkpoints = CheckpointFolder(folder)
    checkpoints.path(14).rename(checkpoints.path(13))
    with pytest.raises(UserError, match="damaged"):
        checkpoints.load(13)


def test_folders_of_other_trainings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    trainer(folder).train()
    with pytest.raises(UserError, match="already holds a training"):
        trainer(folder).train()
    other = trainer(folder)
    other.seed = 4
    with pytest.raises(UserError, match="another seed: 3, here 4"):
        other.train(resume=True)
    images = trainer(folder)
    images.inputs = images.inputs + 1
    with pytest.raises(UserError, match="another images"):
        images.train(resume=True)
    with pytest.raises(UserError, match="resume"):
        trainer(None).train(resume=True)
    with pytest.raises(UserError, match="keep"):
        CheckpointFolder(folder, keep=1)
    with pytest.raises(UserError, match="cannot make"):
        CheckpointFolder(tmp_path / "no" / "such")


def test_bad_arguments_are_named() -> None:
    inputs, targets = digits()
    path = SinglePath(UniformSampler(SPACE))
    with pytest.raises(UserError, match="at least 1 batch of 64"):
        Trainer(build(SPACE), inputs[:50], targets[:50], path)
    with pytest.raises(UserError, match="at least 2 batches of 64"):
        Trainer(build(SPACE), inputs, targets, Differentiable())
    with pytest.raises(UserError, match="SharedWeights"):
        Trainer(NASBench201Supernet(2, 1), inputs, targets, path)
    with pytest.raises(UserError, match="architecture parameters"):
        Trainer(Linears(), inputs, targets, Differentiable())
    with pytest.raises(UserError, match="sampler: expected one for darts_cnn"):
        Trainer(CellWeights(DARTSSupernet(2, 1)), inputs, targets, path)
    for name, value in (("batch_size", 1), ("decay", "step"), ("clip", 0), ("learning_rate", float("nan"))):
        with pytest.raises(UserError, match=name):
            TrainingOptions(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="order"):
        Differentiable("gumbel_hard", order=2)
    with pytest.raises(UserError, match="mixing"):
        Differentiable("hard")  # type: ignore[arg-type]
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="warm_up: expected a fraction of the steps"):
            Differentiable(warm_up=fraction)


# ---- losses that are not finite --------------------------------------------------------------------------


def test_one_bad_loss_takes_the_weights_back() -> None:
    calls = 0

    def sometimes(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x * float("nan") if calls == 8 else x

    hurt = trainer(None)
    hurt.transform = sometimes
    result = hurt.train()
    assert result.restarts == 1
    assert len(result.losses) == STEPS
    assert calls == STEPS + 2  # step 7 again, and step 6 before it
    assert all(tensor.isfinite().all() for tensor in hurt.model.state_dict().values())


@pytest.mark.parametrize("name", ["softmax", "second order", "gumbel_hard"])
def test_a_bad_loss_leaves_no_trace_in_the_architecture(name: str) -> None:
    """Alpha and its optimiser have taken their step when the weights' loss turns out to be bad."""
    options = TrainingOptions(steps=6, batch_size=16, learning_rate=0.05)
    bad = [4]

    def train(broken: bool) -> Trainer:
        torch.manual_seed(0)
        step = 0

        def transform(x: torch.Tensor) -> torch.Tensor:
            nonlocal step
            step += 1
            return x * float("nan") if broken and step in bad else x

        made = Trainer(
            build(SPACE), *digits(), METHODS[name](), options, checkpoint_every=3, transform=transform
        )
        assert made.train().restarts == int(broken)
        return made

    found = train(broken=True)
    assert all(tensor.isfinite().all() for tensor in found.model.state_dict().values())
    for state in found._optimizers["architecture"].state.values():
        assert state["exp_avg"].isfinite().all()
        assert state["step"] == 6
    assert not same(found.model, train(broken=False).model)  # others were drawn


def test_losses_that_stay_bad_end_the_training_with_good_weights() -> None:
    inputs, targets = digits()
    torch.manual_seed(0)
    options = TrainingOptions(steps=9, batch_size=16, learning_rate=0.1, max_restarts=2)
    seen: list[int] = []
    hurt = Trainer(
        build(SPACE),
        inputs,
        targets,
        SinglePath(UniformSampler(SPACE)),
        options,
        checkpoint_every=2,
        on_step=lambda step: seen.append(step.number),
        transform=lambda x: x * float("inf") if len(seen) >= 3 else x,
    )
    with pytest.raises(UserError, match=r"step 2 of 9: .*3 failures since step 2"):
        hurt.train()
    assert all(tensor.isfinite().all() for tensor in hurt.model.state_dict().values())


# ---- what it computes -------------------------------------------------------------------------------------


def test_a_step_is_sgd_and_leaves_the_rest_alone() -> None:
    inputs, targets = digits()
    torch.manual_seed(0)
    model = Linears()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    options = TrainingOptions(steps=1, batch_size=96, learning_rate=0.1, weight_decay=0.01, clip=0.5)
    seen: list[TrainingStep] = []
    Trainer(model, inputs, targets, SinglePath(UniformSampler(SPACE)), options, on_step=seen.append).train()
    chosen = seen[0].architectures[0].decisions[0]
    after = {name: t.clone() for name, t in model.state_dict().items()}
    model.load_state_dict(before)
    loss = nn.functional.cross_entropy(model(inputs, seen[0].architectures[0]), targets)
    names = [f"first.{chosen}.weight", f"first.{chosen}.bias", "last.weight", "last.bias"]
    parameters = [dict(model.named_parameters())[name] for name in names]
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.5
    for name, gradient in zip(names, gradients, strict=True):
        expected = before[name] - 0.1 * (gradient * 0.5 / norm + 0.01 * before[name])
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)
    for name in set(before) - set(names):
        assert torch.equal(after[name], before[name]), name
    assert seen[0].loss == pytest.approx(float(loss.detach()), rel=1e-5)


def test_candidates_that_did_not_run_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = build(SPACE)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    seen: list[TrainingStep] = []
    options = TrainingOptions(steps=1, batch_size=16, weight_decay=0.1)
    path = SinglePath(UniformSampler(SPACE))
    Trainer(model, *digits(), path, options, seed=2, on_step=seen.append).train()
    decisions = seen[0].architectures[0].decisions
    edges = ["1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2"]
    moved = 0
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        parts = name.split(".")
        if "edges" in parts and decisions[edges.index(parts[4])] != int(parts[5]):
            assert not changed, name
        moved += changed
    assert moved


class Smooth(Supernet):
    """Three candidates on one edge, and no kink that a difference could fall on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 6)
        self.norm = nn.BatchNorm1d(6)
        self.edge = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))
        self.alpha = nn.Parameter(torch.randn(1, 3))

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        return (self.alpha,)

    def derive(self) -> int:
        return int(self.alpha.argmax())

    def choose(self, architecture: Any) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError

    def _run(self, x: torch.Tensor, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
        y = torch.tanh(self.norm(self.stem(x.flatten(1))))
        return sum(w * torch.tanh(layer(y)) for w, layer in zip(weights[0][0], self.edge, strict=True))  # type: ignore


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_second_order_is_the_gradient_through_a_step(momentum: float) -> None:
    torch.manual_seed(0)
    network = Smooth().double()
    x, y = torch.randn(8, 3, 2, 2, dtype=torch.float64), torch.randint(4, (8,))
    held_x, held_y = torch.randn(8, 3, 2, 2, dtype=torch.float64), torch.randint(4, (8,))
    weights, alphas = list(network.weight_parameters()), list(network.architecture_parameters())
    optimizer = torch.optim.SGD(weights, 0.05, momentum=momentum, weight_decay=0.01)
    if momentum:
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        network.zero_grad()
    names = {id(p): name for name, p in network.named_parameters()}
    before = {name: t.clone() for name, t in network.state_dict().items()}

    def loss(inputs: torch.Tensor, targets: torch.Tensor, moved: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = torch.func.functional_call(network, moved, (inputs,))
        return nn.functional.cross_entropy(logits, targets)

    second_order_gradient(network, lambda: loss(x, y, {}), lambda: loss(held_x, held_y, {}), optimizer)
    ours = [alpha.grad.clone() for alpha in alphas if alpha.grad is not None]
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())

    gradients = torch.autograd.grad(loss(x, y, {}), weights, create_graph=True)
    moved = {}
    for weight, gradient in zip(weights, gradients, strict=True):
        state = optimizer.state.get(weight, {}).get("momentum_buffer")
        push = gradient + 0.01 * weight + (0 if state is None else momentum * state)
        moved[names[id(weight)]] = weight - 0.05 * push
    exact = torch.autograd.grad(loss(held_x, held_y, moved), alphas)
    first = torch.autograd.grad(loss(held_x, held_y, {name: w.detach() for name, w in moved.items()}), alphas)
    for mine, theirs, short in zip(ours, exact, first, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        assert (mine - theirs).norm() < 0.01 * (short - theirs).norm()


def test_alpha_waits_until_the_warm_up_is_over() -> None:
    """Seven steps, 0.4 of them warm: alpha stays for steps 0 to 2 and moves in each of 3 to 6."""
    alphas: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []

    def train(warm_up: float, rate: float) -> None:
        torch.manual_seed(0)
        network = Smooth()
        alphas.append(network.alpha.detach().clone())

        def remember(step: TrainingStep) -> None:
            alphas.append(network.alpha.detach().clone())
            weights.append(network.stem.weight.detach().clone())

        options = TrainingOptions(steps=7, batch_size=8)
        method = Differentiable(learning_rate=rate, warm_up=warm_up)
        images = torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(1))
        Trainer(network, images, torch.arange(16) % 4, method, options, on_step=remember).train()

    train(0.4, 0.01)
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(alphas)]
    assert changed == [False] * 3 + [True] * 4
    alphas.clear()
    train(0.0, 1e-30)  # too small to move alpha: so the weights went their way alone
    assert all(torch.equal(warm, alone) for warm, alone in zip(weights[:3], weights[7:10], strict=True))
    assert not torch.equal(weights[6], weights[13])


def test_uniform_paths_learn_digits() -> None:
    source = data.load_images("digits", size=8)
    torch.manual_seed(0)
    space = spaces.NASBench201(channels=8, num_cells=1)
    model = build(space)
    options = TrainingOptions(epochs=3, learning_rate=0.1, precision="bfloat16")
    result = Trainer(model, source.inputs[:1400], source.targets[:1400], SinglePath(UniformSampler(space)),
                     options).train()  # fmt: skip
    assert len(result.losses) == 3 * (1400 // 64)
    assert sum(result.losses[-10:]) < 0.8 * sum(result.losses[:10])
    arch = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    with torch.no_grad():  # by the batch's statistics: the running ones are of all paths
        right = (model(source.inputs[1400:], arch).argmax(1) == source.targets[1400:]).float().mean()
    assert right > 0.4
    assert model.training


# ---- samplers --------------------------------------------------------------------------------------------


def test_fair_samples_contain_every_choice() -> None:
    for space in (SPACE, spaces.ProxylessNAS(), spaces.DARTSCNN()):
        sampled = FairSampler(space).sample(random.Random(0))
        assert len(sampled) == max(space.num_choices)
        for i, choices in enumerate(space.num_choices):
            counts = [sum(arch.decisions[i] == c for arch in sampled) for c in range(choices)]
            assert sum(counts) == len(sampled)
            assert max(counts) - min(counts) <= 1
            assert min(counts) >= 1
    assert FairSampler(SPACE).sample(random.Random(0)) == FairSampler(SPACE).sample(random.Random(0))
    with pytest.raises(UserError, match="fixed number"):
        FairSampler(spaces.get("epnas"))


def test_flops_bins_are_met_alike_often() -> None:
    sampler = FlopsBinSampler(SPACE, image_size=8)
    assert sampler.bins == 7
    rng = random.Random(0)
    counts = [0] * 7
    for _ in range(700):
        (arch,) = sampler.sample(rng)
        macs = SPACE.macs(arch, 10, 8)
        nearest = min(max((macs - sampler.low) / sampler.width, 0), 6.999)
        counts[int(nearest)] += 1
    uniform = [0] * 7
    for _ in range(700):
        macs = SPACE.macs(SPACE.sample(rng), 10, 8)
        uniform[int(min(max((macs - sampler.low) / sampler.width, 0), 6.999))] += 1
    assert max(counts) / min(counts) < max(uniform) / max(min(uniform), 1)
    spos = spaces.SPOSShuffleNet()
    published = FlopsBinSampler(spos, low=290e6, high=360e6, width=10e6, num_classes=1000, image_size=224)
    assert published.bins == 7
    for _ in range(5):
        (arch,) = published.sample(rng)
        assert 290e6 <= spos.macs(arch, 1000, 224) <= 360e6
    with pytest.raises(UserError, match="low"):
        FlopsBinSampler(SPACE, low=5, high=5)
    with pytest.raises(UserError, match="width"):
        FlopsBinSampler(SPACE, low=5, high=6, width=2)
    nowhere = FlopsBinSampler(SPACE, low=1e12, high=2e12, tries=20)
    rng = random.Random(1)
    (arch,) = nowhere.sample(rng)
    again = random.Random(1)
    again.randrange(7)
    assert SPACE.macs(arch) == max(SPACE.macs(SPACE.sample(again)) for _ in range(20))


# ---- several processes -------------------------------------------------------------------------------------


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(SCRIPT), "together", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert one["processes"] == other["processes"] == 2
    assert one["architectures"] == other["architectures"]
    assert len(one["architectures"]) == 2 * 6 * 5
    for name in ("linears", "nasbench201"):
        assert one[f"losses {name}"] == other[f"losses {name}"]
        for key, tensor in one[name].items():
            assert torch.equal(tensor, other[name][key]), key
    model = Linears()
    model.load_state_dict(one["start"])
    alone = together(model)
    assert alone.losses == pytest.approx(one["losses linears"], rel=1e-4)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, one["linears"][key], rtol=1e-3, atol=1e-5)
