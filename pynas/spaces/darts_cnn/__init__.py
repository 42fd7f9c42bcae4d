"""DARTS on images: a normal and a reduction cell of four nodes, two of 7 operations into each."""

from __future__ import annotations

from pynas.spaces.darts_cnn.space import DARTSCNN

__all__ = ["DARTSCNN"]
