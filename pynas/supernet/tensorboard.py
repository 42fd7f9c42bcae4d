"""Logs a training to TensorBoard, if that is installed (the ``tensorboard`` extra)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pynas._errors import UserError

if TYPE_CHECKING:
    from pynas.supernet.trainer import TrainingStep


@contextmanager
def open_log(folder: Path | None) -> Iterator[Callable[[TrainingStep], None]]:
    """A function for :class:`Trainer`'s ``on_step`` that writes scalars; for None it does nothing.

    Args:
        folder: Folder of event files, for ``tensorboard --logdir``.

    Raises:
        UserError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "tensorboard: is not installed; pip install 'pynas-torch[tensorboard]', or leave out the log"
        ) from error
    writer = SummaryWriter(str(folder))

    def log(step: TrainingStep) -> None:
        for name in ("loss", "accuracy", "learning_rate"):
            writer.add_scalar(name, getattr(step, name), step.number)

    try:
        yield log
    finally:
        writer.close()
