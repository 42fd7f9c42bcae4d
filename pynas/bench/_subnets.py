"""Cases for evaluating a generation of architectures with shared weights, against one at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pynas.architecture import Architecture
from pynas.bench._harness import CASES, Case, Problem
from pynas.spaces import SearchSpace, SPOSShuffleNet
from pynas.strategies.spos_evolution import SPOSEvolution
from pynas.supernet import SharedWeights, build
from pynas.supernet.evaluation import SubnetEvaluator
from pynas.trial import Evaluation, Status, Trial


def generation(space: SearchSpace, number: int, size: int = 50) -> list[Architecture]:
    """Generation ``number`` of SPOS's search (0 is random), with a score that is a sum over decisions."""
    rng = random.Random(0)
    worth = [[rng.gauss(0, 1) for _ in range(choices)] for choices in space.num_choices]
    strategy = SPOSEvolution(space, seed=0, population_size=size, mutations=size // 2, crossovers=size // 2)
    for count in range(number * size):
        arch = strategy.ask()
        score = sum(row[decision] for row, decision in zip(worth, arch.decisions, strict=True))
        strategy.tell(Trial(count, arch, Evaluation(Status.OK, {"accuracy": score})))
    return [strategy.ask() for _ in range(size)]


def one_at_a_time(
    model: SharedWeights, archs: Sequence[Architecture], calibration: Sequence[Tensor], x: Tensor, y: Tensor
) -> list[float]:
    """The baseline: reset statistics, forward passes in training mode, one in evaluation mode."""
    found = []
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for arch in archs:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        with torch.no_grad():
            for batch in calibration:
                model(batch, arch)
            model.eval()
            found.append(float((model(x, arch).argmax(1) == y).double().mean()))
    return found


def generation_case(number: int, width: float, image_size: int) -> Problem:
    """Fifty architectures: two batches of 32 images for recalibration, 64 images for evaluation."""
    torch.manual_seed(0)
    model = build(SPOSShuffleNet(), 10, width=width)
    archs = generation(model.space, number)
    calibration = [torch.randn(32, 3, image_size, image_size) for _ in range(2)]
    x, y = torch.randn(64, 3, image_size, image_size), torch.arange(64) % 10
    evaluate = SubnetEvaluator(model, x, y, calibration=calibration, cache_size=0)

    def check() -> None:
        expected = one_at_a_time(model, archs[:5], calibration, x, y)
        assert [score.accuracy for score in evaluate(archs[:5])] == expected

    return Problem(
        {
            "pynas": lambda: evaluate(archs),
            "one at a time": lambda: one_at_a_time(model, archs, calibration, x, y),
        },
        check,
    )


for _number in (0, 5, 19):
    CASES.register(
        f"subnets/spos-generation-{_number}",
        Case(
            f"subnets/spos-generation-{_number}",
            lambda n=_number: generation_case(n, 0.25, 64),  # type: ignore[misc]
            0.5 if _number == 5 else None,
            0.25 if _number == 5 else None,
            slow=True,
        ),
    )
