"""Checkpoints of a training: one safetensors file each, either complete or recognisably damaged."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pynas._errors import UserError
from pynas._io import strict_json, weights

_NAME = re.compile(r"step-([0-9]{8,18})\.safetensors")
_FORMAT = "pynas-checkpoint-2"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step.

    Attributes:
        step: Number of completed steps.
        tensors: Weights, buffers and optimiser state, by name.
        record: All else, as a JSON value.
    """

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


class CheckpointFolder:
    """Checkpoints of one training, named ``step-N.safetensors``.

    A file is written under a temporary name, flushed to the disk and then renamed, so a file under its final
    name is complete. Its header has a SHA-256 sum over names, dtypes, shapes, bytes and the JSON record; a
    file whose sum does not match is damaged.

    Args:
        folder: Created if absent (its parent must exist).
        keep: Number of last checkpoints to keep; at least 2, so that there is one to fall back on.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        if keep < 2:
            raise UserError(f"keep: expected at least 2 checkpoints, got {keep}")
        self.folder, self.keep = Path(folder), keep
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot make a folder of checkpoints: {error}") from error

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read: {error.strerror or error}") from error
        steps = [int(match[1]) for match in map(_NAME.fullmatch, names) if match]
        return sorted(step for step in steps if self.path(step).name in names)

    def path(self, step: int) -> Path:
        """Path of the checkpoint after ``step`` steps."""
        return self.folder / f"step-{step:08d}{weights.SUFFIX}"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and delete the oldest ones beyond ``keep``.

        Raises:
            UserError: The disk is full, or the folder is not writable.
        """
        metadata = {
            "format": _FORMAT,
            "step": str(checkpoint.step),
            "record": json.dumps(checkpoint.record, sort_keys=True),
        }
        path = self.path(checkpoint.step)
        weights.save(path, checkpoint.tensors, metadata)
        try:
            for step in self.steps()[: -self.keep]:
                self.path(step).unlink()
            for partial in self.folder.glob(".step-*.partial"):  # of trainings that were killed
                partial.unlink()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot delete old checkpoints: {error}") from error

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint after ``step`` steps.

        Raises:
            UserError: It is absent or damaged.
        """
        path = self.path(step)
        tensors, metadata = weights.load(path)
        if metadata.get("format") != _FORMAT:
            raise UserError(f"{path}: not a checkpoint of a supernet's training")
        if metadata.get("step") != str(step):
            raise UserError(
                f"{path}: damaged: its name says step {step}, its header says {metadata.get('step')}"
            )
        try:
            record = strict_json.loads(metadata.get("record", ""))
        except ValueError as error:
            raise UserError(f"{path}: damaged: its record is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}: damaged: its record is not a JSON object")
        return Checkpoint(step, tensors, record)

    def load_latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The last intact checkpoint, or None if there are none, and what is wrong with later ones.

        Raises:
            UserError: All checkpoints are damaged.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.load(step), damaged
            except UserError as error:
                damaged.append(str(error))
        if damaged:
            raise UserError(f"{self.folder}: no checkpoint is intact: {'; '.join(damaged)}")
        return None, []
