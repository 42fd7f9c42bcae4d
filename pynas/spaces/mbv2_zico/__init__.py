"""The ImageNet space of Zen-NAS and ZiCo: super-blocks of inverted residuals that grow by replacement."""

from __future__ import annotations

from pynas.spaces.mbv2_zico.space import MBV2ZiCo

__all__ = ["MBV2ZiCo"]
