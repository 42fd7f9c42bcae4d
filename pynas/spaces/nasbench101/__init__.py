"""NAS-Bench-101: cells of at most 7 vertices and 9 edges, three operations on vertices, 423,624 of them."""

from __future__ import annotations

from pynas.spaces.nasbench101.space import NASBench101

__all__ = ["NASBench101"]
