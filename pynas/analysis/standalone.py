"""Stand-alone training: the ground truth of small networks that are in no table."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pynas import ops
from pynas._errors import UserError
from pynas._generators import seeded
from pynas._io import strict_json
from pynas._io.atomic import append_line
from pynas._plural import counted
from pynas.analysis.checks import Floats
from pynas.analysis.tasks import Task
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.supernet import TrainingOptions
from pynas.supernet.evaluation import score_network
from pynas.supernet.seeds import Batches, derive

_AUXILIARY = 0.4  # weight of an auxiliary head's loss, as in DARTS


def train_alone(
    space: SearchSpace, arch: Architecture, task: Task, options: TrainingOptions, seed: int = 0
) -> float:
    """Train one architecture from scratch by SGD and return its :meth:`~pynas.analysis.tasks.Task.measure`.

    The measure is validation accuracy in percent for images, log likelihood in nats per word for text.
    Initial weights and data order depend only on ``seed``. A loss that is not finite ends the training; the
    broken network is then measured.
    """
    task.check(space)
    device = task.inputs.device
    with seeded(derive(seed, "alone")), torch.inference_mode(False), torch.enable_grad():
        network = space.build(arch, task.num_classes, task.in_channels).to(device)
        task.start(network)
        with ops.strided_convolutions_of(network):  # images may be channels_last
            _train(network, task, options, seed)
    validation = (task.validation_inputs, task.validation_targets)
    return task.measure(score_network(network.eval(), *validation, task.evaluation_batch))


def _train(network: nn.Module, task: Task, options: TrainingOptions, seed: int) -> None:
    count = len(task.targets)
    if count < options.batch_size:
        raise UserError(
            f"batch_size: expected at most {counted(count, 'training sample')}, got {options.batch_size:,}"
        )
    batches = Batches(torch.arange(count), options.batch_size, derive(seed, "order"))
    total = options.steps or options.epochs * batches.per_epoch
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(
        parameters, options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    network.train()
    for step in range(total):
        optimizer.param_groups[0]["lr"] = options.rate(step, total)
        positions = batches.at(step).to(task.inputs.device)
        inputs = task.inputs[positions]
        logits: Any = network(inputs if task.transform is None else task.transform(inputs))
        targets = task.targets[positions]
        main, *others = logits if isinstance(logits, tuple) else (logits,)
        loss = F.cross_entropy(main, targets, label_smoothing=options.label_smoothing)
        for other in others:
            loss = loss + _AUXILIARY * F.cross_entropy(other, targets)
        if not math.isfinite(float(loss.detach())):
            return
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if options.clip is not None:
            nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()


def ground_truth(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    task: Task,
    options: TrainingOptions,
    *,
    repeats: int = 1,
    cache: Path | None = None,
    on_result: Callable[[Architecture, int, float], None] | None = None,
) -> Floats:
    """Train each architecture from scratch, ``repeats`` times with new seeds: measures ``[repeats, N]``.

    Args:
        space: Space of the architectures.
        architectures: N architectures.
        task: Data to train and validate on.
        options: Length and rates of the trainings.
        repeats: Number of trainings, with seeds 0, 1, ...
        cache: A file of JSON lines to which each result is appended at once. Results in it for the same
            network, data and options are not trained again.
        on_result: Called with architecture, seed and measure, also for results from the cache.
    """
    known = _Cache(cache)
    setting = {"task": task.digest(), "options": asdict(options), "space": space.name}
    found = np.empty((repeats, len(architectures)))
    for seed in range(repeats):
        for i, arch in enumerate(architectures):
            # The number of parameters tells networks of one space with other options (channels, depth) apart.
            size = task.params(space, arch)
            key = json.dumps(
                setting | {"seed": seed, "decisions": arch.decisions, "params": size}, sort_keys=True
            )
            value = known.get(key)
            if value is None:
                value = train_alone(space, arch, task, options, seed)
                known.add(key, value)
            found[seed, i] = value
            if on_result is not None:
                on_result(arch, seed, value)
    return found


class _Cache:
    """Numbers by key in an append-only file; damaged or incomplete lines are ignored."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, float] = {}
        if path is None or not os.path.exists(path):
            return
        for record in strict_json.read_lines(path, "results of trainings"):
            with contextlib.suppress(ValueError):  # damaged: train again
                key, value = _result(record)
                self._known[key] = value

    def get(self, key: str) -> float | None:
        return self._known.get(key)

    def add(self, key: str, value: float) -> None:
        self._known[key] = value
        if self.path is None:
            return
        # JSON cannot represent values that are not finite.
        record = {"key": key, "value": value if math.isfinite(value) else str(value)}
        append_line(self.path, json.dumps(strict_json.signed(record)))


def _result(record: Any) -> tuple[str, float]:
    """Key and number of a line of the file; lines of older versions have no checksum."""
    match record:
        case {"key": str() as key, "value": (float() | "nan" | "inf" | "-inf") as value, **more}:
            if more:
                strict_json.check_sum(record)
            return key, float(value)
    raise ValueError("not a training result")
