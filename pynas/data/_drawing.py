"""The batch that networks are scored with: one set of options for every command and function."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from torch import Tensor

from pynas._errors import UserError
from pynas._plural import counted
from pynas.data._loading import is_own, load_images

DEFAULT_BATCH = 256
_LOADED = 2048  # of a dataset of the user's, from which the batch is drawn


class Drawn(NamedTuple):
    """A batch and its task.

    Attributes:
        inputs: ``[N, C, H, W]`` float32.
        targets: ``[N]`` int64.
        num_classes: Number of classes of the task.
        source: Name of the images.
    """

    inputs: Tensor
    targets: Tensor
    num_classes: int
    source: str

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.inputs.shape))
        return f"Drawn({self.source!r}, [{shape}], {counted(self.num_classes, 'class', 'classes')})"

    @property
    def name(self) -> str:
        """For people: ``digits, 256 images``."""
        return f"{self.source}, {counted(len(self.targets), 'image')}"


def draw(
    images: Any,
    *,
    size: int | None = None,
    batch: int | None = None,
    classes: int | None = None,
    seed: int = 0,
    argument: str = "batch",
) -> Drawn:
    """A random batch of images.

    Args:
        images: As for :func:`load_images`. Of a dataset or a loader only the first or so many drawn images as
            a batch needs are read, at least 2,048.
        size: Resize to ``size`` x ``size`` pixels.
        batch: Number of images; by default 256, or as many as there are, one less if that is odd and not one.
        classes: Number of classes, where the images show only some of them.
        seed: Seed of the draw.
        argument: What messages call ``batch``.

    Raises:
        UserError: As :func:`load_images`; or there are fewer images than ``batch``.
    """
    wanted = batch or DEFAULT_BATCH
    given = not isinstance(images, str) or is_own(images)
    limit = max(wanted, _LOADED) if given else None
    source = load_images(images, size=size, limit=limit, seed=seed, classes=classes)
    count = len(source)
    if batch is not None and batch > count:
        raise UserError(
            f"{argument}: {source.name} has {counted(count, 'image')}, fewer than {batch:,}; leave it "
            "out to take what there is"
        )
    if batch is None:
        batch = min(DEFAULT_BATCH, count)
        batch -= batch % 2 if batch > 1 else 0  # two micro-batches
    inputs, targets = source.take(random.Random(seed).sample(range(count), batch))
    return Drawn(inputs, targets, source.num_classes, source.name)
