"""Networks grown layer by layer, in the manner of EPNAS."""

from __future__ import annotations

from pynas.spaces.epnas.space import EPNAS

__all__ = ["EPNAS"]
