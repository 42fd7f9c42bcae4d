"""Labelled images to score networks with.

    images = pynas.data.load_images("cifar10:data/cifar-10-batches-py")
    inputs, targets = pynas.data.batch(images, 256, seed=0)

To add a source, write one file with a function ``(rest of the spec, size, select) -> Images``, import it
below and add it to the registry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pynas._errors import UserError
from pynas._registry import Registry
from pynas.data import cifar10, digits, folder, npz
from pynas.data._base import Batch, Images, Select, batch
from pynas.data.augment import CropAndFlip

__all__ = ["Batch", "CropAndFlip", "Images", "batch", "load_images", "sources"]

Source = Callable[[str, int | None, Select], Images]

_SOURCES: Registry[Source] = Registry("source of images")
_SOURCES.register("cifar10", cifar10.read)
_SOURCES.register("digits", digits.read)
_SOURCES.register("folder", folder.read)
_SOURCES.register("npz", npz.read)


def sources() -> tuple[str, ...]:
    """The sources that :func:`load_images` reads, sorted."""
    return _SOURCES.names()


def load_images(spec: str, *, size: int | None = None, limit: int | None = None, seed: int = 0) -> Images:
    """Read a labelled set of images.

    Args:
        spec: ``digits`` (1,797 handwritten digits, part of scikit-learn), ``cifar10:DIR`` (the training
            batches of the python or the binary archive), ``npz:FILE`` (arrays ``images`` and ``labels``) or
            ``folder:DIR`` (one folder of image files per class).
        size: Resize to ``size`` x ``size`` pixels. By default images keep their size, digits become 32 x 32.
        limit: Keep at most this many images, drawn at random; only these files of a folder are opened.
        seed: Seed of that draw.

    Returns:
        The images, normalised per channel: CIFAR-10 by its published constants, others by their own mean and
        standard deviation.

    Raises:
        UserError: The source is unknown, absent, empty or malformed; the message says what and where.
    """
    for name, value in (("size", size), ("limit", limit)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"{name}: expected a positive integer, got {value!r}")

    def select(count: int) -> Sequence[int]:
        if limit is None or limit >= count:
            return range(count)
        return sorted(random.Random(seed).sample(range(count), limit))

    kind, _, rest = spec.partition(":")
    return _SOURCES.get(kind)(rest, size, select)
