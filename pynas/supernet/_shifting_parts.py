"""Settings and results of Supernet Shifting, and how it proposes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.strategies.spos_evolution import SPOSEvolution
from pynas.trial import Trial

Variant = Literal["code", "paper"]


@dataclass(frozen=True)
class ShiftingOptions:
    """Settings of :class:`Shifting`; the defaults are those of the authors' code.

    Attributes:
        variant: ``code``: each candidate takes ``steps`` steps of SGD of its own, then is judged. ``paper``:
            all candidates of a generation are judged with the same weights, the gradients of their losses
            are averaged, each over ``steps`` batches, and one step of SGD ends the generation.
        generations: After the first, random one.
        steps: Batches of each candidate.
        batch_size: Images of a batch.
        learning_rate: Of SGD, constant.
        classifier_learning_rate: Of the last layer; ``learning_rate`` if None. A new classifier needs more.
        momentum: Of SGD.
        weight_decay: Of the weights that a step uses.
        label_smoothing: Of the cross-entropy.

    Raises:
        UserError: A setting is out of its range.
    """

    variant: Variant = "code"
    generations: int = 20
    steps: int = 20
    batch_size: int = 150
    learning_rate: float = 1e-4
    classifier_learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        rates = [self.learning_rate, self.classifier_learning_rate or self.learning_rate]
        checks: tuple[tuple[str, bool, str], ...] = (
            ("variant", self.variant in ("code", "paper"), "code or paper"),
            ("generations", self.generations >= 0, "at least 0"),
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("learning_rate", all(0 < r < math.inf for r in rates), "a positive number"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "a number in [0, 1)"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise UserError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Candidate:
    """One evaluation of the search; ``loss`` is the mean over its training batches.

    A candidate whose training loss or validation loss is not finite has an accuracy of NaN.
    """

    generation: int
    architecture: Architecture
    accuracy: float
    loss: float


@dataclass(frozen=True)
class ShiftingResult:
    """What a search found; ``damaged`` says what was wrong with later checkpoints than the one used."""

    candidates: tuple[Candidate, ...]
    resumed_from: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        """The one of the highest accuracy; of the last generation among equal ones."""
        finite = [c for c in self.candidates if math.isfinite(c.accuracy)]
        if not finite:
            raise UserError("shifting: every candidate failed: its loss was not finite")
        return max(finite, key=lambda c: (c.accuracy, c.generation))


class ShiftingEvolution(SPOSEvolution):
    """SPOS's evolution, but an architecture may come again in a later generation, and is judged anew.

    As in the authors' code: what was measured with older weights does not hold for ever. Parents keep their
    older accuracy until they come again.
    """

    def tell(self, trial: Trial) -> None:
        key = self._key(trial.architecture)
        self._parents = [m for m in self._parents if self._key(m[0]) != key]
        super().tell(trial)
        if self._told == 0:
            self._seen, self._remaining = {}, None
