"""Train supernets in several settings and take down what their sub-networks reach."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pynas import _json
from pynas._atomic import replacing
from pynas._errors import UserError
from pynas.analysis._checks import Floats
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
from pynas.supernet._random import derive
from pynas.supernet._state import restore
from pynas.supernet.evaluation import SubnetEvaluator

Statistics = Literal["running", "recalibrated"]


@dataclass(frozen=True)
class Sharing:
    """Who shares which weights.

    Attributes:
        groups: Copies of all weights; 0 for one that the whole space trains, 1 for one that only the
            evaluated architectures train, more to divide these.
        how: How they are divided.
        prefix: First segments that all groups share all the same.
    """

    groups: int = 0
    how: Partition = "shuffled"
    prefix: int = 0

    @property
    def name(self) -> str:
        """For people, and for folders."""
        if self.groups == 0:
            return "whole space"
        if self.groups == 1:
            return "evaluated only"
        common = f", first {self.prefix} layers shared" if self.prefix else ""
        return f"{self.groups} {self.how} groups{common}"


@dataclass(frozen=True)
class Study:
    """Supernets of one space, judged on the same architectures and images.

    The same number of steps trains every setting, so an architecture gets as many steps of its own with one
    group as with many; those of other architectures that change its weights become fewer.

    Attributes:
        space: One that :func:`pynas.supernet.build` knows.
        architectures: To evaluate.
        task: What to train and validate on, of a kind that the space's networks read.
        options: Of the supernets' training.
        folder: Keeps checkpoints and results; calling again goes on.
        seeds: How many trainings of each setting.
        checkpoints: How many of the last checkpoints are judged.
        checkpoint_every: Steps between two.
        calibration: Training samples that recalibrate the batch norms of each sub-network, where it has any.
        calibration_batch: Samples of a batch of these.
        network: Options of the supernet, as of :func:`pynas.supernet.build`.
        on_step: Called after each step of training with the setting, its seed and the step.
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
            UserError: The folder holds something else, or fewer checkpoints than asked for.
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
                    f"{self.checkpoints}; take fewer, a smaller checkpoint_every, or another folder"
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
        """The task's measure of each architecture with shared weights on the validation data.

        ``running`` normalises by the running statistics, which all trained paths have moved; ``recalibrated``
        by means and variances of each sub-network on training samples. The model is afterwards as before.
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "supernet"))
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

    # ---- what was judged already -----------------------------------------------------------------

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
            record = _json.read(path, "the estimates of a study")
            if isinstance(record, dict) and record.get("judged") == self._judged(statistics):
                _json.check_sum(record)
                return [float(value) for value in record["estimates"]]
        except ValueError:  # absent, damaged or of before there was a sum: judged anew
            pass
        return None

    def _write(self, folder: Path, step: int, statistics: Statistics, values: list[float]) -> None:
        path = folder / f"estimates-{step}-{statistics}.json"
        record = {"judged": self._judged(statistics), "estimates": values}
        with replacing(path) as file:
            file.write(json.dumps(_json.signed(record)).encode())
