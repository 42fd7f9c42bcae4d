"""The handwritten digits that are part of scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998.
"""

from __future__ import annotations

import numpy as np

from pynas._errors import UserError
from pynas.data._base import Images, Select, make_images

DEFAULT_SIZE = 32  # as CIFAR-10, for which many spaces are made


def read(rest: str, size: int | None, select: Select) -> Images:
    """Read ``digits``: 1,797 grey images of 8x8 pixels in 10 classes, resized and converted to RGB."""
    if rest:
        raise UserError(f"images digits: takes no argument, got {rest!r}")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return make_images(
        (bunch.images / 16.0).astype(np.float32),  # the source has values from 0 to 16
        bunch.target,
        name="digits",
        what="digits",
        size=size if size is not None else DEFAULT_SIZE,
        select=select,
        num_classes=10,
    )
