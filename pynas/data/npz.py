"""Images in NumPy archives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pynas._errors import UserError
from pynas._io.files import listed
from pynas._io.npz import open_npz
from pynas.data._base import Images, Select, make_images

_KEYS = (("images", "labels"), ("train_images", "train_labels"))


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``npz:FILE`` with ``images`` [N, H, W, 3] and ``labels`` [N].

    If these are absent, it reads ``train_images`` and ``train_labels``. Images are uint8 or floating point;
    grey ones may be [N, H, W]. An array ``class_names`` defines the number of classes.

    Raises:
        UserError: The file is absent or damaged, or its arrays are not of this form.
    """
    if not rest:
        raise UserError("images npz: give a file, as in npz:images.npz")
    path = Path(os.path.expanduser(rest))
    with open_npz(path) as archive:
        keys = next((pair for pair in _KEYS if set(pair) <= set(archive.files)), None)
        if keys is None:
            wanted = " or ".join(" and ".join(pair) for pair in _KEYS)
            raise UserError(f"{path}: expected the keys {wanted}, got {listed(archive.files) or 'none'}")
        pixels, labels = archive[keys[0]], archive[keys[1]]
        num_classes = _count(archive["class_names"], path) if "class_names" in archive else None
    return make_images(
        pixels, labels, name=path.stem, what=str(path), size=size, select=select, num_classes=num_classes
    )


def _count(names: NDArray[Any], path: Path) -> int:
    """Number of classes."""
    if names.ndim != 1 or not len(names):
        raise UserError(f"{path}: class_names must be a list of names, got shape {list(names.shape)}")
    return len(names)
