"""What tests run in processes of their own, to be killed or to work together. Arguments: mode, folder."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pynas import Architecture, spaces
from pynas.supernet import (
    FairSampler,
    Segment,
    SharedWeights,
    SinglePath,
    Trainer,
    TrainingOptions,
    TrainingResult,
    TrainingStep,
    UniformSampler,
    build,
    distributed,
)

STEPS = 14
SPACE = spaces.NASBench201(channels=4, num_cells=1)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of ten classes, which needs no scikit-learn."""
    random = torch.Generator().manual_seed(5)
    targets = torch.randint(10, (96,), generator=random)
    return torch.randn(96, 3, 8, 8, generator=random) + targets[:, None, None, None] / 5, targets


def trainer(folder: Path | None, on_step: Any = None) -> Trainer:
    """The training that is killed."""
    torch.manual_seed(0)
    model = build(SPACE)
    options = TrainingOptions(steps=STEPS, batch_size=16, learning_rate=0.1)
    return Trainer(
        model,
        *digits(),
        SinglePath(UniformSampler(SPACE)),
        options,
        seed=3,
        checkpoints=folder,
        checkpoint_every=3,
        transform=lambda x: x + 0.1 * torch.randn_like(x),
        on_step=on_step,
    )


class Linears(SharedWeights):
    """Two linear choices on a linear layer: without batch norms, so that parts of a batch add up."""

    def __init__(self) -> None:
        super().__init__()
        self.space = SPACE
        self.first = nn.ModuleList(nn.Linear(192, 8) for _ in range(5))
        self.last = nn.Linear(8, 10)

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        chosen = self.first[arch.decisions[0]]
        head = Segment("head", self.last, (self.last,))
        return Segment(arch.decisions[0], lambda x: chosen(x.flatten(1)).relu(), (chosen,)), head

    def classifier(self) -> nn.Linear:
        return self.last

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self.last = layer


def together(model: SharedWeights, on_step: Any = None) -> TrainingResult:
    """The training that several processes share."""
    options = TrainingOptions(steps=6, batch_size=16, learning_rate=0.1)
    method = SinglePath(FairSampler(SPACE))
    return Trainer(model, *digits(), method, options, seed=3, on_step=on_step).train()


def _share(folder: Path) -> None:
    with distributed.torchrun():
        rank = distributed.rank()
        seen: list[str] = []

        def remember(step: TrainingStep) -> None:
            seen.extend(arch.to_json() for arch in step.architectures)

        saved: dict[str, Any] = {"processes": distributed.world()}
        for name, make in (("linears", Linears), ("nasbench201", lambda: build(SPACE))):
            torch.manual_seed(rank)  # they start with different weights, which training puts right
            model = make()
            if name == "linears" and rank == 0:
                saved["start"] = {k: t.clone() for k, t in model.state_dict().items()}
            saved[f"losses {name}"] = together(model, remember).losses
            saved[name] = model.state_dict()
        torch.save({**saved, "architectures": seen}, folder / f"rank{rank}.pt")


def _die_while_saving() -> None:
    rename = os.replace

    def dying(source: Any, target: Any) -> None:
        if "00000009" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = dying


def main() -> None:
    """Run a mode."""
    torch.set_num_threads(1)
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "together":
        _share(folder)
        return
    if mode == "die-while-saving":
        _die_while_saving()
    trainer(folder, lambda step: print(step.number, flush=True)).train(resume=True)


if __name__ == "__main__":
    main()
