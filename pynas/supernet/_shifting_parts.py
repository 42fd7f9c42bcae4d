"""Settings, results and search strategy of Supernet Shifting."""

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
        variant: ``code``: each candidate takes ``steps`` SGD steps of its own and is then evaluated.
            ``paper``: all candidates of a generation are evaluated with the same weights; their gradients,
                each
            over ``steps`` batches, are averaged, and one SGD step ends the generation.
        generations: Number of generations after the first, which is random.
        steps: Batches of each candidate.
        batch_size: Images in a batch.
        learning_rate: Constant learning rate of SGD.
        classifier_learning_rate: Learning rate of the last layer; ``learning_rate`` if None. A new classifier
            needs a higher one.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the weights that a step uses.
        label_smoothing: Label smoothing of the cross-entropy.
        decay_vectors: Whether parameters of one dimension (biases, batch norms) decay too. In the authors'
            code they do not; versions without this option decayed them.

    Raises:
        UserError: A setting is out of range.
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
    decay_vectors: bool = False

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
    """The result of a search; ``damaged`` describes damaged checkpoints later than the one used."""

    candidates: tuple[Candidate, ...]
    resumed_from: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        """The candidate with the highest accuracy; of equal ones, that of the last generation."""
        finite = [c for c in self.candidates if math.isfinite(c.accuracy)]
        if not finite:
            raise UserError("shifting: every candidate failed: the losses were not finite")
        return max(finite, key=lambda c: (c.accuracy, c.generation))


class ShiftingEvolution(SPOSEvolution):
    """SPOS's evolution, but a later generation may propose an architecture again, which is evaluated again.

    As in the authors' code: accuracies measured with older weights become outdated. Parents keep their older
    accuracy until they are proposed again. Candidates are compared by accuracy, where the authors compare the
    top-5 error of equal ones next.
    """

    def tell(self, trial: Trial) -> None:
        key = self._key(trial.architecture)
        self._parents = [m for m in self._parents if self._key(m[0]) != key]
        super().tell(trial)
        if self._told == 0:
            self._seen, self._remaining = {}, None
