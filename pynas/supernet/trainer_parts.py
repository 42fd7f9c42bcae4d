"""What a training reports: each step, and the whole training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor

from pynas.architecture import Architecture


@dataclass(frozen=True)
class TrainingStep:
    """One step of a training.

    Attributes:
        number: Number of the step, from 0.
        total: Number of steps of the whole training.
        loss: Cross-entropy on the weights' batch, before the step.
        accuracy: Accuracy on that batch, in [0, 1].
        learning_rate: Learning rate of the weights.
        architectures: The architectures that were trained, if the method samples them.
    """

    number: int
    total: int
    loss: float
    accuracy: float
    learning_rate: float
    architectures: tuple[Architecture, ...]


@dataclass(frozen=True)
class TrainingResult:
    """A whole training, including the steps before an interruption.

    Attributes:
        losses: Loss of each step.
        accuracies: Accuracy of each step.
        resumed_from: Number of steps in the checkpoint that it resumed from.
        restarts: How often a loss or gradient that was not finite reset it.
        damaged: What was wrong with checkpoints later than the one used.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    resumed_from: int = 0
    restarts: int = 0
    damaged: tuple[str, ...] = ()


def describe_transform(transform: Callable[[Tensor], Tensor] | None) -> str | None:
    """An identification of a transform that is the same in every process."""
    if transform is None:
        return None
    if is_dataclass(type(transform)):
        return repr(transform)
    named: Any = transform if hasattr(transform, "__qualname__") else type(transform)
    return str(named.__qualname__)  # without the module: in a script that is __main__ or its own name
