"""NAS-Bench-201: a cell of four nodes and six edges, five operations an edge, 15,625 architectures."""

from __future__ import annotations

from pynas.spaces.nasbench201.space import NASBench201

__all__ = ["NASBench201"]
