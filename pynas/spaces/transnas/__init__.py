"""Shared by the two spaces of TransNAS-Bench-101: tasks, skeleton, decoders, and their costs."""

from __future__ import annotations

from pynas.spaces.transnas.macro import TransNASMacro
from pynas.spaces.transnas.micro import TransNASMicro

__all__ = ["TransNASMacro", "TransNASMicro"]
