"""Labelled images to score networks with.

    images = pynas.data.load_images("cifar10:data/cifar-10-batches-py")
    inputs, targets = pynas.data.batch(images, 256, seed=0)

To add a source, write one file with a function ``(rest of the spec, size, select) -> Images``, import it in
``_loading`` and add it to the registry there.
"""

from __future__ import annotations

from pynas.data._base import Batch, Images, Select, batch
from pynas.data._drawing import DEFAULT_BATCH, Drawn, draw
from pynas.data._loading import is_own, load_images, sources
from pynas.data.augment import CropAndFlip

__all__ = [
    "DEFAULT_BATCH",
    "Batch",
    "CropAndFlip",
    "Drawn",
    "Images",
    "Select",
    "batch",
    "draw",
    "is_own",
    "load_images",
    "sources",
]
