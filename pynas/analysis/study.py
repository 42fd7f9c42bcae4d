"""Trains supernets in several settings and records the estimates of their sub-networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pynas._errors import UserError
from pynas._generators import seeded
from pynas._io import strict_json
from pynas._io.atomic import replacing
from pynas.analysis.checks import Floats
from pynas.analysis.groups import ChildSampler, GroupedWeights, Partition, partition
from pynas.analysis.tasks import Task
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.supernet import (
    SharedWeights,
    SinglePath,
    Trainer,
    TrainingOptions,
    TrainingStep,
    UniformSampler,
    build,
)
from pynas.supernet.evaluation import SubnetEvaluator
from pynas.supernet.seeds import derive
from pynas.supernet.training_state import restore

Statistics = Literal["running", "recalibrated"]


@dataclass(frozen=True)
class Sharing:
    """Which architectures share which weights.

    Attributes:
        groups: 0: one supernet, trained on the whole space; 1: one, trained on the evaluated architectures
            only; more: these are divided into groups with a copy of the weights each.
        how: How to divide them.
        prefix: Number of first segments that all groups share.
    """

    groups: int = 0
    how: Partition = "shuffled"
    prefix: int = 0

    @property
    def name(self) -> str:
        """Display name, also of the folder."""
        if self.groups == 0:
            return "whole space"
        if self.groups == 1:
            return "evaluated only"
        common = f", first {self.prefix} layers shared" if self.prefix else ""
        return f"{self.groups} {self.how} groups{common}"


@dataclass(frozen=True)
class Study:
    """Supernets of one space, evaluated on the same architectures and data.

    Every setting trains for the same number of steps. So the number of an architecture's own steps does not
    depend on the number of groups; with more groups, fewer steps of other architectures change its weights.

    Attributes:
        space: A space that :func:`pynas.supernet.build` supports.
        architectures: Architectures to evaluate.
        task: Data to train and validate on, of the kind that the space's networks read.
        options: Options of the supernets' training.
        folder: Holds checkpoints and results; calling again resumes.
        seeds: Number of trainings of each setting.
        checkpoints: Number of last checkpoints to evaluate.
        checkpoint_every: Steps between checkpoints.
        calibration: Number of training samples to recalibrate the batch norms of each sub-network with.
        calibration_batch: Batch size of these samples.
        network: Options of the supernet, as in :func:`pynas.supernet.build`.
        on_step: Called after each training step with the setting, its seed and the step.
    """

    space: SearchSpace
    architectures: tuple[Architecture, ...]
    task: Task
    options: TrainingOptions
    folder: Path
    seeds: int = 1
    checkpoints: int = 1
    checkpoint_every: int = 100
    calibration: int = 512
    calibration_batch: int = 128
    network: dict[str, Any] = field(default_factory=dict)
    on_step: Callable[[Sharing, int, TrainingStep], None] | None = None

    def estimates(
        self, sharing: Sharing, statistics: Sequence[Statistics] = ("recalibrated",)
    ) -> dict[Statistics, Floats]:
        """Measures of the task, ``[seeds, checkpoints, N]``, by kind of batch-norm statistics.

        Raises:
            UserError: The folder holds something else, or fewer checkpoints than requested.
        """
        found: dict[Statistics, list[list[list[float]]]] = {kind: [] for kind in statistics}
        for seed in range(self.seeds):
            for rows in found.values():
                rows.append([])
            model, trainer = self._train(sharing, seed)
            assert trainer.folder is not None
            steps = trainer.folder.steps()[-self.checkpoints :]
            if len(steps) < self.checkpoints:
                raise UserError(
                    f"checkpoints: {trainer.folder.folder} holds {len(steps)}, fewer than "
                    f"{self.checkpoints}; use fewer, a smaller checkpoint_every, or another folder"
                )
            for step in steps:
                missing = [k for k in statistics if self._read(trainer.folder.folder, step, k) is None]
                if missing:
                    restore(trainer.folder.load(step).tensors, model, {})
                for kind in statistics:
                    values = self._read(trainer.folder.folder, step, kind)
                    if values is None:
                        values = self.judge(model, kind)
                        self._write(trainer.folder.folder, step, kind, values)
                    found[kind][seed].append(values)
        return {kind: np.array(rows, dtype=np.float64) for kind, rows in found.items()}

    def judge(self, model: SharedWeights, statistics: Statistics) -> list[float]:
        """The task's measure of each architecture, with shared weights, on the validation data.

        ``running`` normalises by the running statistics, which all trained paths have updated;
        ``recalibrated`` by means and variances of each sub-network on training samples. Leaves the model
        unchanged.
        """
        task = self.task
        calibration = self._calibration_batches() if statistics == "recalibrated" else None
        evaluator = SubnetEvaluator(
            model,
            task.validation_inputs,
            task.validation_targets,
            calibration=calibration,
            batch_size=task.evaluation_batch,
        )
        return [task.measure(score) for score in evaluator(self.architectures)]

    def _calibration_batches(self) -> list[Tensor]:
        count = min(self.calibration, len(self.task.inputs))
        order = torch.randperm(len(self.task.inputs), generator=torch.Generator().manual_seed(0))[:count]
        parts = torch.tensor_split(order, max(1, round(count / self.calibration_batch)))
        return [self.task.inputs[positions.to(self.task.inputs.device)] for positions in parts]

    def _train(self, sharing: Sharing, seed: int) -> tuple[SharedWeights, Trainer]:
        self.task.check(self.space)
        with seeded(derive(seed, "supernet")):
            weights = build(self.space, self.task.num_classes, self.task.in_channels, **self.network)
            self.task.start(weights)
        model: SharedWeights = weights
        sampler: UniformSampler | ChildSampler = UniformSampler(self.space)
        if sharing.groups:
            sampler = ChildSampler(self.space, self.architectures)
            if sharing.groups > 1:
                of = partition(self.space, self.architectures, sharing.groups, sharing.how, seed)
                model = GroupedWeights(
                    weights, dict(zip(self.architectures, of, strict=True)), sharing.prefix
                )
        model.to(self.task.inputs.device)
        folder = self.folder / f"{sharing.name.replace(', ', ' ').replace(' ', '-')}-seed-{seed}"
        on_step = self.on_step
        trainer = Trainer(
            model,
            self.task.inputs,
            self.task.targets,
            SinglePath(sampler),
            self.options,
            seed=seed,
            checkpoints=folder,
            checkpoint_every=self.checkpoint_every,
            keep=max(2, self.checkpoints),
            transform=self.task.transform,
            on_step=None if on_step is None else lambda step: on_step(sharing, seed, step),
        )
        trainer.train(resume=True)
        return model, trainer

    # ---- stored estimates ------------------------------------------------------------------------

    def _judged(self, statistics: Statistics) -> dict[str, Any]:
        found: dict[str, Any] = {
            "task": self.task.digest(),
            "architectures": [list(arch.decisions) for arch in self.architectures],
        }
        if statistics == "recalibrated":
            found["calibration"] = [self.calibration, self.calibration_batch]
        return found

    def _read(self, folder: Path, step: int, statistics: Statistics) -> list[float] | None:
        path = folder / f"estimates-{step}-{statistics}.json"
        try:
            record = strict_json.read(path, "the estimates of a study")
            if isinstance(record, dict) and record.get("judged") == self._judged(statistics):
                strict_json.check_sum(record)
                return [float(value) for value in record["estimates"]]
        except ValueError:  # absent, damaged, or of a version without checksum: evaluate again
            pass
        return None

    def _write(self, folder: Path, step: int, statistics: Statistics, values: list[float]) -> None:
        path = folder / f"estimates-{step}-{statistics}.json"
        record = {"judged": self._judged(statistics), "estimates": values}
        with replacing(path) as file:
            file.write(json.dumps(strict_json.signed(record)).encode())
