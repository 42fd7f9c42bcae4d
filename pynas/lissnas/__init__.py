"""LISSNAS: shrinking a search space by locality, and measuring locality, diversity and shrinkage.

Source: B. Gopal, A. Sridhar, T. Zhang, Y. Chen, "LISSNAS: Locality-based Iterative Search Space Shrinkage for
Neural Architecture Search", IJCAI 2023, arXiv:2307.03110. No code was published; docstrings mark what the
paper leaves open as pynas's own choice.
"""

from __future__ import annotations

from pynas.lissnas.measures import autocorrelation, diversity, pockets, shrink_index
from pynas.lissnas.shrink import Iteration, Shrinkage, lissnas

__all__ = [
    "Iteration",
    "Shrinkage",
    "autocorrelation",
    "diversity",
    "lissnas",
    "pockets",
    "shrink_index",
]
