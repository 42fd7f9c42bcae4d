"""What a training reports: its steps one by one, and all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor

from pynas.architecture import Architecture


@dataclass(frozen=True)
class TrainingStep:
    """What a step of training was.

    Attributes:
        number: From 0.
        total: Steps of the whole training.
        loss: Cross-entropy of the batch of the weights, before the step.
        accuracy: Fraction of that batch that was right.
        learning_rate: Of the weights.
        architectures: That were trained, where the method samples some.
    """

    number: int
    total: int
    loss: float
    accuracy: float
    learning_rate: float
    architectures: tuple[Architecture, ...]


@dataclass(frozen=True)
class TrainingResult:
    """A whole training, also where it was interrupted.

    Attributes:
        losses: Of each step.
        accuracies: Of each step.
        resumed_from: Steps that a checkpoint had done already.
        restarts: How often a loss or gradient that was not finite took it back.
        damaged: What was wrong with later checkpoints than the one that was used.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    resumed_from: int = 0
    restarts: int = 0
    damaged: tuple[str, ...] = ()


def describe_transform(transform: Callable[[Tensor], Tensor] | None) -> str | None:
    """What tells one way to change images from another, and is the same in another process."""
    if transform is None:
        return None
    if is_dataclass(type(transform)):
        return repr(transform)
    named: Any = transform if hasattr(transform, "__qualname__") else type(transform)
    return str(named.__qualname__)  # not the module: a script's is __main__ or its own name
