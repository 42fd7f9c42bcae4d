"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

from pynas.hardware.counts import MacCount, ParameterCount, macs, params

__all__ = ["MacCount", "ParameterCount", "macs", "params"]
