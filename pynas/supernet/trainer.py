"""Trains shared weights; a kill at any moment costs only the time since the last checkpoint."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats.data import check_labels, explaining, label_range
from pynas.supernet import distributed, training_state
from pynas.supernet._base import SharedWeights
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from pynas.supernet.methods import Method, NotFiniteError, Outcome, StepContext
from pynas.supernet.options import TrainingOptions
from pynas.supernet.seeds import Batches, derive
from pynas.supernet.trainer_parts import TrainingResult, TrainingStep, describe_transform

__all__ = ["Trainer", "TrainingResult", "TrainingStep"]

_log = logging.getLogger(__name__)


class Trainer:
    """Trains a model in place by a method, in steps whose random numbers depend only on seed and number.

    Order of images, sampled architectures and dropout of step n are drawn from ``(seed, n)``; weights,
    buffers and optimiser states are in the checkpoint. So an interrupted training resumes bit for bit (on the
    same machine, with the same number of threads).

    A loss or gradient that is NaN or infinite resets everything to the last checkpoint (a copy in memory if
    there is no folder); other images and architectures are then drawn.

    Under ``torchrun`` (:func:`distributed.torchrun`) each process takes its part of every batch.

    Args:
        model: :class:`SharedWeights`, or a :class:`~pynas.nn.Supernet` for :class:`Differentiable`; on its
            device.
        inputs: Images ``[N, C, H, W]``, or windows of words ``[N, T]`` int64; may be on another device.
        targets: ``[N]`` int64, or ``[N, T]`` for words.
        method: Defines a step.
        options: Length and rates of the training.
        seed: Seed of all random numbers.
        checkpoints: Folder of checkpoints; None for none.
        checkpoint_every: Steps between checkpoints.
        keep: Number of last checkpoints to keep.
        transform: Augmentation of each batch that trains the weights, such as
            :class:`pynas.data.CropAndFlip`; it draws from torch's global generator.
        on_step: Called after each step, again for steps that are repeated after a reset.

    Raises:
        UserError: Arguments do not fit together. While training: labels that the model has no output for,
            images of other channels than it reads or of a dtype that it does not take.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        method: Method,
        options: TrainingOptions | None = None,
        *,
        seed: int = 0,
        checkpoints: Path | str | None = None,
        checkpoint_every: int = 100,
        keep: int = 2,
        transform: Callable[[Tensor], Tensor] | None = None,
        on_step: Callable[[TrainingStep], None] | None = None,
    ) -> None:
        self.options = options or TrainingOptions()
        method.check(model)
        self.model, self.method, self.seed = model, method, seed
        self.inputs, self.targets = inputs, targets
        self._labels = label_range(targets)
        self.transform, self.on_step = transform, on_step
        if checkpoint_every < 1:
            raise UserError(f"checkpoint_every: expected a positive number of steps, got {checkpoint_every}")
        self.every = checkpoint_every
        self.folder = None if checkpoints is None else CheckpointFolder(Path(checkpoints), keep=keep)
        self.device = next(model.parameters()).device
        self._batches = self._split()
        per_epoch = self._batches["weights"].per_epoch
        self.total = self.options.steps or self.options.epochs * per_epoch
        self._weights = list(method.weights(model))
        self._optimizers: dict[str, Optimizer] = {
            "weights": torch.optim.SGD(
                self._weights,
                self.options.learning_rate,
                momentum=self.options.momentum,
                weight_decay=self.options.weight_decay,
            ),
            **method.optimizers(model),
        }

    def _split(self) -> dict[str, Batches]:
        count, size = len(self.targets), self.options.batch_size
        parts = 2 if self.method.halves else 1
        if len(self.inputs) != count or count // parts < size:
            raise UserError(
                f"inputs, targets: expected equally many, at least {counted(parts, 'batch', 'batches')} "
                f"of {size:,}, got {len(self.inputs):,} and {count:,}"
            )
        if size % distributed.world():
            raise UserError(
                f"batch_size: expected a multiple of {distributed.world()} (one part a process), got {size:,}"
            )
        generator = torch.Generator().manual_seed(derive(self.seed, "halves"))
        order = torch.randperm(count, generator=generator)
        half = count // parts
        batches = {"weights": Batches(order[:half], size, derive(self.seed, "weights"))}
        if self.method.halves:
            batches["architecture"] = Batches(order[half:], size, derive(self.seed, "architecture"))
        return batches

    def train(self, *, resume: bool = False) -> TrainingResult:
        """Train to the end.

        Args:
            resume: Continue from the last intact checkpoint of the folder, or start if there is none.

        Raises:
            UserError: The folder holds another training, or this one and ``resume`` is false, or only damaged
                checkpoints; or losses keep being not finite.
        """
        steps = self.steps(resume=resume)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast(TrainingResult, end.value)

    def steps(self, *, resume: bool = False) -> Generator[TrainingStep, None, TrainingResult]:
        """The training of :meth:`train`, one step at a time: for callers that pause or end it in between.

        Between two steps the model may be evaluated, in any mode. The generator returns the result; closing
        it earlier ends the training with the weights as they are, and later resumes from the last checkpoint.

        Raises:
            UserError: As :meth:`train`.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        steps = self._steps(resume)
        while True:
            with torch.random.fork_rng(devices=devices):
                try:
                    step = next(steps)
                except StopIteration as end:
                    return cast(TrainingResult, end.value)
            yield step

    def _steps(self, resume: bool) -> Generator[TrainingStep, None, TrainingResult]:
        distributed.start_alike(self.model)
        state, damaged = self._begin(resume)
        begun = state.step
        number, salt, failures = state.step, int(state.record["restarts"]), 0
        history: list[list[float]] = state.tensors["history"].tolist()
        while number < self.total:
            self.model.train()
            try:
                step = self._step(number, salt)
            except NotFiniteError as reason:
                failures += 1
                self._restore(state)
                if failures > self.options.max_restarts:
                    raise UserError(
                        f"training: step {number} of {self.total}: {reason}, "
                        f"{counted(failures, 'failure')} since step {state.step}; the weights were reset "
                        "to that step. Try a smaller learning_rate or clip; look for NaN in the images"
                    ) from reason
                _log.warning("step %d: %s; back to step %d", number, reason, state.step)
                number, salt = state.step, salt + 1
                history = state.tensors["history"].tolist()
                continue
            history.append([step.loss, step.accuracy])
            number += 1
            if number % self.every == 0 or number == self.total:
                state, failures = self._state(number, salt, history), 0
                if self.folder is not None and distributed.rank() == 0:
                    self.folder.save(state)
            if self.on_step is not None:
                self.on_step(step)
            yield step
        distributed.barrier()
        losses, accuracies = zip(*history, strict=True) if history else ((), ())
        return TrainingResult(tuple(losses), tuple(accuracies), begun, salt, tuple(damaged))

    # ---- one step --------------------------------------------------------------------------------

    def _step(self, number: int, salt: int) -> TrainingStep:
        rate = self.options.rate(number, self.total)
        for group in self._optimizers["weights"].param_groups:
            group["lr"] = rate
        # Dropout differs between processes; sampled architectures must not.
        torch.manual_seed(derive(self.seed, salt, number, "layers", distributed.rank()))
        common = derive(self.seed, salt, number, "step")
        context = StepContext(
            progress=number / self.total,
            rng=random.Random(common),
            generator=torch.Generator().manual_seed(common),
            optimizers=self._optimizers,
            batch=lambda which: self._batch(which, number, salt),
            loss=self._loss,
            autocast=self._autocast,
            update=self._update,
        )
        with explaining(self.inputs):
            outcome = self.method.step(self.model, context)
        loss, accuracy = self._means(outcome)
        return TrainingStep(number, self.total, loss, accuracy, rate, outcome.architectures)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        check_labels(self._labels, logits)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(wide, targets, label_smoothing=self.options.label_smoothing)

    def _batch(self, which: str, number: int, salt: int) -> tuple[Tensor, Tensor]:
        positions = self._batches[which].at(number, salt)[distributed.rank() :: distributed.world()]
        positions = positions.to(self.inputs.device)
        inputs = self.inputs[positions].to(self.device)
        if self.transform is not None and which == "weights":
            inputs = self.transform(inputs)
        return inputs, self.targets[positions.to(self.targets.device)].to(self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.options.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _update(self) -> None:
        """Average over processes, clip, and step."""
        used = [weight for weight in self._weights if weight.grad is not None]
        gradients = [weight.grad for weight in used if weight.grad is not None]
        if distributed.world() > 1:
            floating = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
            distributed.average([*gradients, *floating])
        norms = torch._foreach_norm(gradients)
        norm = float(torch.stack([n.double() for n in norms]).norm()) if norms else 0.0
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm is {norm}")
        if self.method.sparse:
            # Fused edges give zero gradients to candidates that did not run; plain modules give None.
            zero = torch.stack(norms).eq(0).tolist() if norms else []
            for weight, is_zero in zip(used, zero, strict=True):
                if is_zero:
                    weight.grad = None
        if self.options.clip is not None and norm > self.options.clip:
            torch._foreach_mul_(gradients, self.options.clip / norm)
        self._optimizers["weights"].step()

    def _means(self, outcome: Outcome) -> tuple[float, float]:
        pair = torch.stack((outcome.loss.double(), outcome.accuracy.double()))
        distributed.average([pair])
        loss, accuracy = pair.tolist()
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        return loss, accuracy

    # ---- state -----------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What must be unchanged for a training to resume bit for bit."""
        return {
            "seed": self.seed,
            "options": asdict(self.options),
            "method": self.method.describe(),
            "model": type(self.model).__name__,
            "processes": distributed.world(),
            "checkpoint_every": self.every,
            "images": training_state.digest(self.inputs, self.targets),
            "transform": describe_transform(self.transform),
            **(self.model.settings() if isinstance(self.model, SharedWeights) else {}),
        }

    def _state(self, number: int, salt: int, history: list[list[float]]) -> Checkpoint:
        tensors = training_state.collect(self.model, self._optimizers)
        tensors["history"] = torch.tensor(history, dtype=torch.float64).view(-1, 2)
        return Checkpoint(number, tensors, {"restarts": salt, "training": self._identity()})

    def _restore(self, state: Checkpoint) -> None:
        where = "checkpoint" if self.folder is None else str(self.folder.path(state.step))
        training_state.restore(state.tensors, self.model, self._optimizers, where)

    def _begin(self, resume: bool) -> tuple[Checkpoint, list[str]]:
        if resume and self.folder is None:
            raise UserError("resume: needs a folder of checkpoints, got none")
        if self.folder is not None and self.folder.steps():
            if not resume:
                raise UserError(
                    f"{self.folder.folder}: already holds a training; resume it, or use another folder"
                )
            found, damaged = self.folder.load_latest()
            for message in damaged:
                _log.warning("%s", message)
            assert found is not None
            holds = f"{self.folder.folder}: holds a training"
            training_state.check_same(found.record.get("training"), self._identity(), holds)
            history, restarts = found.tensors.get("history"), found.record.get("restarts")
            if history is None or history.shape != (found.step, 2) or type(restarts) is not int:
                raise UserError(f"{self.folder.path(found.step)}: not a checkpoint of a training")
            self._restore(found)
            return found, damaged
        return self._state(0, 0, []), []
