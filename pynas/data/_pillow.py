"""Pixels of Pillow's images, of any mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DEEP = ("I", "F")  # prefixes of modes with more than 8 bits per channel
_MOST = 65535


def pixels_of(image: Any, size: int | None) -> NDArray[Any]:
    """``[H, W, 3]``: uint8, or float32 in [0, 1] for 16-bit grey; bilinear to ``size`` x ``size`` if given.

    Grey becomes RGB, and an alpha channel is dropped, as torchvision does.

    Raises:
        ValueError: It has values that are no 16-bit integers, whose scale nothing says.
    """
    from PIL import Image

    deep = image.mode.startswith(_DEEP)
    converted = image.convert("F" if deep else "RGB")
    if deep:
        values = np.asarray(converted)
        if image.mode == "F" or values.min() < 0 or values.max() > _MOST:
            raise ValueError(
                f"it has values from {values.min():g} to {values.max():g} (mode {image.mode}), whose scale "
                "is not known; expected 8 or 16 bits per channel"
            )
    if size is not None and converted.size != (size, size):
        converted = converted.resize((size, size), Image.Resampling.BILINEAR)
    if not deep:
        return np.asarray(converted)
    grey = np.asarray(converted, dtype=np.float32) / np.float32(_MOST)
    return np.repeat(grey[..., None], 3, axis=2)
