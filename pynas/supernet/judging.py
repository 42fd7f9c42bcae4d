"""How good an architecture is with shared weights, without running statistics of batch norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pynas.architecture import Architecture
from pynas.supernet._base import SharedWeights


@torch.no_grad()
def batch_accuracy(
    model: SharedWeights, arch: Architecture, inputs: Tensor, targets: Tensor, *, batch_size: int = 256
) -> float:
    """Fraction of images that ``arch`` classifies rightly, each batch normalised by its own statistics.

    The running statistics of a supernet are those of all paths together, and of no one. Model and buffers
    are afterwards as before.

    Args:
        model: Trained weights.
        arch: Of its space.
        inputs: ``[N, C, H, W]``.
        targets: ``[N]`` int64.
        batch_size: Images at a time; statistics of few are noisy.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.training = True
    try:
        parts = max(
            1, round(len(targets) / batch_size)
        )  # of nearly one size: a rest of two has no statistics
        right = sum(
            int((model(x, arch).argmax(1) == y).sum())
            for x, y in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)
        )
    finally:
        for module, training in modes.items():
            module.training = training
        for buffer, before in buffers:
            buffer.copy_(before)
    return right / len(targets)
