"""The training of a supernet in phases, one step at a time, each in the space that is allowed then."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.steer._strategy import seed_of
from pynas.supernet import (
    CheckpointFolder,
    Sampler,
    SharedWeights,
    SinglePath,
    SubnetEvaluator,
    Trainer,
    TrainingOptions,
    TrainingStep,
    training_state,
)
from pynas.supernet.evaluation import weights_version
from pynas.trial import Evaluation, Status

STEPS = "steps"
"""The metric of a trial that says how many training steps its weights had had."""

_POINTS_PER_EPOCH = 10
_VALIDATED = 4  # architectures whose mean is a point of validation
_CALIBRATION = 256  # images in a batch that recalibrates batch norms


class _Present(Sampler):
    """Uniform in the space as it is when a step begins."""

    name = "steered"

    def describe(self) -> dict[str, str | int | float]:
        """The name only: what is allowed changes, and follows from the actions."""
        return {"sampler": self.name, "space": self.space.name}

    def sample(self, rng: random.Random) -> tuple[Architecture, ...]:
        return (self.space.sample(rng),)


@dataclass(frozen=True)
class Point:
    """A point of the curves; see docs/design/steering_protocol.md."""

    step: int
    phase: int
    loss: float
    accuracy: float
    learning_rate: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class SupernetTraining:
    """A supernet with the images that train it and those that judge its architectures.

    A phase is a training of some epochs by single uniform paths (Guo et al., ECCV 2020, arXiv:1904.00420)
    with a schedule of its own, from the weights that the phase before left. Each step draws from the space
    that it is given. With a folder, a killed phase goes on from its last checkpoint bit for bit.

    Args:
        model: The supernet, on its device.
        inputs: Images that train, ``[N, C, H, W]``.
        targets: Their classes, ``[N]``.
        held_inputs: Images that judge; training never sees them.
        held_targets: Their classes.
        options: Settings of each phase; its epochs are given with the phase.
        seed: Seed of all phases.
        calibration: Images to recalibrate batch norms with, of those that train.
        num_classes: Classes of the task, for costs.
    """

    def __init__(
        self,
        model: SharedWeights,
        inputs: Tensor,
        targets: Tensor,
        held_inputs: Tensor,
        held_targets: Tensor,
        *,
        options: TrainingOptions | None = None,
        seed: int = 0,
        calibration: int = 1024,
        num_classes: int | None = None,
    ) -> None:
        # A loss that is not finite ends the phase: a person is there to decide what next.
        self.options = replace(options or TrainingOptions(), steps=None, max_restarts=0)
        self.model, self.space, self.seed = model, model.space, seed
        self.inputs, self.targets = inputs, targets
        self.per_epoch = len(targets) // self.options.batch_size
        if self.per_epoch < 1:
            batch = counted(self.options.batch_size, "image")
            raise UserError(f"inputs: expected at least a batch of {batch}, got {len(targets)}")
        self.point_every = max(1, self.per_epoch // _POINTS_PER_EPOCH)
        seen = inputs[:calibration]
        batches = seen.tensor_split(max(1, round(len(seen) / _CALIBRATION)))
        self.judge = SubnetEvaluator(model, held_inputs, held_targets, calibration=batches)
        self.num_classes = model.classifier().out_features if num_classes is None else num_classes
        self.folder: Path | None = None
        self._sampler = _Present(self.space)
        self._phase = 0
        self._steps: Generator[TrainingStep, None, Any] | None = None
        self._window: list[TrainingStep] = []
        self._kept = (0, 0)
        self.at = 0  # steps, over all phases, that the weights have had
        self._initial = weights_version(model)

    # ---- where it stands ---------------------------------------------------------------------------

    def use_folder(self, folder: Path | None, *, resume: bool) -> None:
        """Keep checkpoints in a folder; with ``resume``, go on from what is there.

        Raises:
            UserError: The folder holds a training already and ``resume`` is false.
        """
        self.folder = folder
        if folder is None:
            return
        phases = sorted(int(path.name[6:]) for path in folder.glob("phase-*") if path.name[6:].isdigit())
        if phases and not resume:
            raise UserError(f"{folder}: already holds a training; delete it, or use another store")
        for phase in reversed(phases):
            steps = CheckpointFolder(self._path(phase)).steps()
            if steps:
                self._kept = (phase, self._intact(phase))
                return

    def _intact(self, phase: int) -> int:
        found, _ = CheckpointFolder(self._path(phase)).load_latest()
        assert found is not None
        return found.step

    def _path(self, phase: int) -> Path:
        assert self.folder is not None
        return self.folder / f"phase-{phase}"

    def is_recorded(self, phase: int, step: int) -> bool:
        """Whether a checkpoint holds the weights after this step of the phase, or later ones."""
        return (phase, step) <= self._kept

    # ---- one step ----------------------------------------------------------------------------------

    def step(self, phase: int, epochs: int, step: int, total: int, space: SearchSpace) -> Point | None:
        """Take step ``step`` of a phase (from 0), in all number ``total``; a point where one is due.

        Raises:
            UserError: A loss or gradient is not finite; the weights are then those of the last checkpoint.
        """
        if self.is_recorded(phase, step + 1):
            if (phase, step + 1) == self._kept:
                self._load(phase)
                self.at = total + 1
            return None
        self.at = total + 1  # also if it fails: that is then the step which the weights are left at
        self._sampler.space = space
        if self._steps is None or phase != self._phase:
            self._open(phase, epochs)
        assert self._steps is not None
        taken = next(self._steps)
        self._window.append(taken)
        is_last = step + 1 == epochs * self.per_epoch
        point = None
        if (step + 1) % self.point_every == 0 or is_last:
            validate = (step + 1) % self.per_epoch == 0 or is_last
            point = self._point(phase, total + 1, space, validate=validate)
        if is_last:
            self.close()
        return point

    def _open(self, phase: int, epochs: int) -> None:
        self.close()
        checkpoints = None
        if self.folder is not None:
            with contextlib.suppress(OSError):  # the folder of the phase says what is wrong
                self.folder.mkdir(parents=True, exist_ok=True)
            checkpoints = self._path(phase)
        every = self.point_every * max(1, round(self.per_epoch / self.point_every))
        trainer = Trainer(
            self.model,
            self.inputs,
            self.targets,
            SinglePath(self._sampler),
            replace(self.options, epochs=epochs),
            seed=seed_of(self.seed, "phase", phase),
            checkpoints=checkpoints,
            checkpoint_every=every,
        )
        self._steps, self._phase, self._window = trainer.steps(resume=checkpoints is not None), phase, []

    def close(self) -> None:
        """End the phase with the weights as they are."""
        if self._steps is not None:
            # A step that another thread takes at this moment is thrown away with its process, as by a kill.
            with contextlib.suppress(ValueError):
                self._steps.close()
            self._steps = None

    def _load(self, phase: int) -> None:
        """The weights of the last checkpoint of a phase."""
        found, _ = CheckpointFolder(self._path(phase)).load_latest()
        assert found is not None
        training_state.restore(found.tensors, self.model, {}, str(self._path(phase)))

    def _point(self, phase: int, step: int, space: SearchSpace, *, validate: bool) -> Point:
        taken, self._window = self._window, []
        count = len(taken)
        point = Point(
            step,
            phase,
            sum(each.loss for each in taken) / count,
            sum(each.accuracy for each in taken) / count,
            taken[-1].learning_rate,
        )
        if not validate:
            return point
        rng = random.Random(f"{self.seed}/validation")
        scores = self.judge([space.sample(rng) for _ in range(_VALIDATED)])
        return replace(
            point,
            validation_loss=sum(score.loss for score in scores) / len(scores),
            validation_accuracy=sum(score.accuracy for score in scores) / len(scores),
        )

    # ---- the evaluator -----------------------------------------------------------------------------

    @property
    def config(self) -> Mapping[str, Any]:
        """What scores depend on besides architecture and actions; identifies a search in its store."""
        held = hashlib.sha256(training_state.digest(self.judge.inputs, self.judge.targets).encode())
        return {
            "supernet": type(self.model).__name__,
            "weights": self._initial,
            "images": training_state.digest(self.inputs, self.targets)[:16],
            "held_images": held.hexdigest()[:16],
            "options": {
                key: value for key, value in vars(self.options).items() if key not in ("epochs", "steps")
            },
            "calibration": sum(map(len, self.judge.calibration or ())),
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "device": next(self.model.parameters()).device.type,
        }

    def evaluate(self, architecture: Architecture, steps: int) -> Evaluation:
        """Accuracy on the held images with the shared weights, which have had ``steps`` steps of training."""
        start = time.perf_counter()
        (score,) = self.judge([architecture])
        return Evaluation(
            Status.OK,
            {"accuracy": score.accuracy},
            {"loss": score.loss, STEPS: float(steps)},
            seconds=time.perf_counter() - start,
        )
