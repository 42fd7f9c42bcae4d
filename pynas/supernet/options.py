"""How long and how fast shared weights are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pynas._errors import UserError

Decay = Literal["cosine", "linear", "constant"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a :class:`Trainer`; the defaults are those of DARTS, 50 epochs as there.

    Attributes:
        epochs: Passes over the images of the weights.
        steps: Steps in all, instead of ``epochs``.
        batch_size: Images of a step, over all processes.
        learning_rate: Of the weights at the start: SGD.
        final_learning_rate: At the end.
        decay: Between them: half a cosine, a line, or neither.
        warm_up: Steps in which the rate grows from zero.
        momentum: Of SGD.
        weight_decay: Of all weights.
        clip: Largest norm of the gradient; None for any.
        label_smoothing: Of the cross-entropy.
        precision: Of products: ``bfloat16`` runs the forward pass under autocast. Weights are float32 anyway.
        max_restarts: How often, between two checkpoints, a loss or gradient that is not finite takes the
            training back to the state before.

    Raises:
        UserError: A setting is out of its range.
    """

    epochs: int = 50
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    decay: Decay = "cosine"
    warm_up: int = 0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float | None = 5.0
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    max_restarts: int = 3

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, bool, str], ...] = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("steps", self.steps is None or self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("learning_rate", _positive(self.learning_rate), "a positive number"),
            ("final_learning_rate", _not_negative(self.final_learning_rate), "a number of at least 0"),
            ("decay", self.decay in get_args(Decay), " | ".join(get_args(Decay))),
            ("warm_up", self.warm_up >= 0, "at least 0"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("weight_decay", _not_negative(self.weight_decay), "a number of at least 0"),
            ("clip", self.clip is None or _positive(self.clip), "a positive number or None"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "a number in [0, 1)"),
            ("precision", self.precision in get_args(Precision), " | ".join(get_args(Precision))),
            ("max_restarts", self.max_restarts >= 0, "at least 0"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise UserError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def rate(self, step: int, total: int) -> float:
        """The learning rate of step ``step`` of ``total``.

        ``r_final + (r - r_final) (1 + cos(pi t)) / 2`` or ``r + (r_final - r) t`` with ``t = step / total``,
        times ``min(1, (step + 1) / warm_up)``.
        """
        start, end, t = self.learning_rate, self.final_learning_rate, step / total
        if self.decay == "cosine":
            rate = end + (start - end) * (1 + math.cos(math.pi * t)) / 2
        elif self.decay == "linear":
            rate = start + (end - start) * t
        else:
            rate = start
        return rate * min(1.0, (step + 1) / self.warm_up) if self.warm_up else rate


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _not_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0
