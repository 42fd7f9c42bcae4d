"""Shared weights: one network for all architectures of a space, and its training.

space = pynas.spaces.NASBench201(channels=16, num_cells=1)
model = pynas.supernet.build(space, num_classes=10)
logits = model(images, space.sample(random.Random(0)))
"""

from __future__ import annotations

from pynas.supernet._base import Segment, SharedWeights
from pynas.supernet._build import build
from pynas.supernet.cells import CellWeights
from pynas.supernet.chains import ProxylessNASSupernet, SPOSSupernet

__all__ = [
    "CellWeights",
    "ProxylessNASSupernet",
    "SPOSSupernet",
    "Segment",
    "SharedWeights",
    "build",
]
