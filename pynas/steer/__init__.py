"""Steering a search by eye and hand while it runs."""

from __future__ import annotations

from pynas.steer._blocks import BlockFitness, block_fitness
from pynas.steer._map import CandidateMap
from pynas.steer._settings import Malformed, Refused, Settings
from pynas.steer.search import SteeredSearch, Unit

__all__ = [
    "BlockFitness",
    "CandidateMap",
    "Malformed",
    "Refused",
    "Settings",
    "SteeredSearch",
    "Unit",
    "block_fitness",
]
