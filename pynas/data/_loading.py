"""Reads labelled images from wherever they are."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pynas import _named
from pynas._errors import UserError, UserNotice
from pynas._plural import counted
from pynas._registry import Registry
from pynas.data import _given, cifar10, digits, folder, npz
from pynas.data._base import MAX_CLASSES, Images, Select

Source = Callable[[str, int | None, Select], Images]

_SOURCES: Registry[Source] = Registry("source of images")
_SOURCES.register("cifar10", cifar10.read)
_SOURCES.register("digits", digits.read)
_SOURCES.register("folder", folder.read)
_SOURCES.register("npz", npz.read)


def sources() -> tuple[str, ...]:
    """The sources that :func:`load_images` reads by name, sorted."""
    return _SOURCES.names()


def is_own(images: str) -> bool:
    """Whether a text names an object of a module, ``package.module:object``."""
    return images.partition(":")[0] not in _SOURCES and _named.is_path(images)


def load_images(
    images: Any,
    *,
    size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    classes: int | None = None,
) -> Images:
    """Read a labelled set of images.

    Args:
        images: ``digits`` (1,797 handwritten digits, part of scikit-learn), ``cifar10:DIR`` (the training
            batches of the python or the binary archive), ``npz:FILE`` (arrays ``images`` and ``labels``),
            ``folder:DIR`` (one folder of image files per class, of any modes; in DIR/train where DIR has
            subfolders for training and validation), or ``package.module:object``. Or an object, which
            such a text may also name: a ``torch.utils.data.Dataset`` or ``DataLoader`` of (image, label), a
            pair (images, labels), :class:`Images`, or a function without arguments that returns one of these.
        size: Resize to ``size`` x ``size`` pixels. By default images keep their size, digits become 32 x 32.
        limit: Keep at most this many images, drawn at random; only these files of a folder and these items
            of a dataset are opened. Of a loader or an iterable dataset it is the first ones.
        seed: Seed of that draw, and of what transforms and loaders draw.
        classes: Number of classes of the task, where the images show only some of them.

    Returns:
        The images, normalised per channel: CIFAR-10 by its published constants, others by their own mean and
        standard deviation. Tensors of floating point come as they are, with any number of channels: their
        transform has normalised them.

    Raises:
        UserError: The source is unknown, absent, empty or malformed; the message says what and where.

    Warns:
        UserNotice: All images are of one class.
    """
    for name, value in (("size", size), ("limit", limit), ("classes", classes)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"{name}: expected a positive integer, got {value!r}")
    found = _with_classes(_read(images, size, limit, seed), classes)
    if found.num_classes == 1:
        warnings.warn(
            f"{found.name}: all {counted(len(found), 'image')} are of one class, so a loss of labels is "
            "constant and scores of its gradients say nothing; use images of several classes, or say how "
            "many there are (classes=, --classes)",
            UserNotice,
            stacklevel=2,
        )
    return found


def _read(images: Any, size: int | None, limit: int | None, seed: int) -> Images:
    if not isinstance(images, str):
        name = images.name if isinstance(images, Images) else _name_of(images)
        return _given.read(_called(images, "images"), name, size, limit, seed)
    if is_own(images):
        given = _called(_named.load(images, f"images {images}"), f"images {images}")
        return _given.read(given, images, size, limit, seed)

    def select(count: int) -> Sequence[int]:
        if limit is None or limit >= count:
            return range(count)
        return sorted(random.Random(seed).sample(range(count), limit))

    kind, _, rest = images.partition(":")
    return _SOURCES.get(kind)(rest, size, select)


def _name_of(images: Any) -> str:
    return "images" if isinstance(images, (tuple, list)) else type(images).__name__


def _called(found: Any, what: str) -> Any:
    """What a function returns, or a class makes, without arguments; anything else itself."""
    holds = not callable(found) or hasattr(found, "__getitem__") or hasattr(found, "__iter__")
    if holds and not isinstance(found, type):
        return found
    try:
        return found()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"{what}: called without arguments, it raised {type(error).__name__}: {error}"
        ) from error


def _with_classes(found: Images, classes: int | None) -> Images:
    if classes is None:
        return found
    highest = int(found.targets.max())
    if highest >= classes or classes > MAX_CLASSES:
        raise UserError(
            f"classes: {found.name} has the label {highest}, so at least "
            f"{counted(highest + 1, 'class', 'classes')} and at most {MAX_CLASSES:,}, got {classes}"
        )
    return replace(found, num_classes=classes)
