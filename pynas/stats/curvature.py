"""Curvature of the loss along its own gradient, by an exact second backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pynas.stats._base import Statistic, Watched
from pynas.stats.collect import collect
from pynas.stats.data import LossFn


@dataclass(frozen=True)
class Curvature(Statistic[float]):
    """sum_w w (H g)_w by weight, g = dL/dW and H = d^2 L / dW^2 over all convolution and linear weights.

    The pass of the loss is differentiated once more; forward, input gradients and weight gradients are those
    that other statistics of the same pass read. With statistics that need a pass which cannot be
    differentiated twice (of scales and shifts, of layers under ``fallback``) it takes a pass of its own.

    Values: floats by the name of the weight.
    """

    watches: ClassVar[Watched] = "curvature"


def curvature(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    loss_fn: LossFn | None = None,
    *,
    training: bool | None = None,
    seed: int | None = None,
) -> dict[str, float]:
    """sum_w w (H g)_w by weight, with g = dL/dW and H = d^2 L / dW^2 over all convolution and linear weights.

    One forward and two backward passes; the model comes back bit for bit as it was.

    Args:
        model: Any module whose operators autograd differentiates twice.
        inputs: Batch [B, ...], or a tuple or dictionary of such.
        targets: For the loss.
        loss_fn: ``loss_fn(outputs, targets)`` to a scalar; default: mean cross-entropy.
        training: Put all modules in this mode; None leaves modes alone. Batch norm normalises by the batch.
        seed: Seeds torch's generators.

    Raises:
        UserError: Bad data, or a weight in a layer without a rule.
    """
    found = collect(model, inputs, targets, loss_fn, needs=[Curvature()], training=training, seed=seed)
    return dict(found[Curvature])
