"""A training taken one step at a time is the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pynas.spaces import NASBench201
from pynas.supernet import (
    SharedWeights,
    SinglePath,
    SubnetEvaluator,
    Trainer,
    TrainingOptions,
    UniformSampler,
    build,
)

SPACE = NASBench201(channels=2, num_cells=1)
ARCH = SPACE.from_index(77)


def model() -> SharedWeights:
    torch.manual_seed(0)
    return build(SPACE, 3)


def trainer(net: SharedWeights, folder: Path | None = None) -> Trainer:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(24, 3, 8, 8, generator=generator)
    y = torch.randint(3, (24,), generator=generator)
    options = TrainingOptions(epochs=3, batch_size=8)
    return Trainer(
        net, x, y, SinglePath(UniformSampler(SPACE)), options, checkpoints=folder, checkpoint_every=4
    )


def weights(net: SharedWeights) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in net.state_dict().values()]


def test_steps_are_those_of_the_whole_training(tmp_path: Path, one_thread: None) -> None:
    whole, stepped = model(), model()
    result = trainer(whole).train()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    losses = []
    evaluate = SubnetEvaluator(stepped, torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64))
    state = torch.get_rng_state()
    for step in trainer(stepped).steps():
        losses.append(step.loss)
        evaluate([ARCH])  # leaves no trace
        stepped.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(before, state)
    assert losses == list(result.losses)
    assert all(map(torch.equal, weights(whole), weights(stepped)))


@pytest.mark.slow
@pytest.mark.parametrize("taken", [0, 3, 4, 6, 9])
def test_a_closed_training_resumes(taken: int, tmp_path: Path, one_thread: None) -> None:
    whole, first, second = model(), model(), model()
    trainer(whole).train()
    steps = trainer(first, tmp_path / "run").steps()
    for _ in range(taken):
        next(steps)
    steps.close()
    numbers = [step.number for step in trainer(second, tmp_path / "run").steps(resume=True)]
    assert numbers == list(range(9 if taken == 9 else taken // 4 * 4, 9))
    assert all(map(torch.equal, weights(whole), weights(second)))
