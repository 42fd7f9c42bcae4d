"""The ShuffleNetV2 space of Single Path One-Shot: 20 blocks for ImageNet, four choices each."""

from __future__ import annotations

from pynas.spaces.spos_shufflenet.space import SPOSShuffleNet

__all__ = ["SPOSShuffleNet"]
