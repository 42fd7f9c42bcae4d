"""NATS-Bench SSS, the size search space: five widths out of eight around a fixed cell."""

from __future__ import annotations

from pynas.spaces.nats_size.space import NATSSize

__all__ = ["NATSSize"]
