"""Options of the training of shared weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pynas._errors import UserError

Decay = Literal["cosine", "linear", "constant"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a :class:`Trainer`; the defaults are those of DARTS, including its 50 epochs.

    Attributes:
        epochs: Passes over the images that train the weights.
        steps: Total number of steps, in place of ``epochs``.
        batch_size: Images in a step, over all processes.
        learning_rate: Initial learning rate of the weights (SGD).
        final_learning_rate: Learning rate at the end.
        decay: Schedule between them: half a cosine, linear, or constant.
        warm_up: Number of steps in which the rate grows from zero.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of all weights.
        clip: Largest gradient norm; None for no clipping.
        label_smoothing: Label smoothing of the cross-entropy.
        precision: Precision of products; ``bfloat16`` runs the forward pass under autocast. Weights are
            always float32.
        max_restarts: How often, between two checkpoints, a loss or gradient that is not finite may reset the
            training to the last checkpoint.

    Raises:
        UserError: A setting is out of range.
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
