"""Steering a search by eye and hand while it runs: its space, strategy, constraints, weights and training.

search = pynas.steer.SteeredSearch("nasbench201", evaluator, objectives=["accuracy"])
search.act("forbid", blocks=["0:0"])
search.act("resume")
while search.advance():
    ...

``pynas.steer(...)`` begins one with a page in front of it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from pynas.steer._blocks import BlockFitness, block_fitness
from pynas.steer._events import Event
from pynas.steer._map import CandidateMap
from pynas.steer._settings import Malformed, Refused, Settings
from pynas.steer.page import Page, steer
from pynas.steer.replaying import Replay, replay
from pynas.steer.search import SteeredSearch, Unit
from pynas.steer.setup import Setup, begin, start, stored_setup
from pynas.steer.steering import Ended, Steering

__all__ = [
    "BlockFitness",
    "CandidateMap",
    "Ended",
    "Event",
    "Malformed",
    "Page",
    "Refused",
    "Replay",
    "Settings",
    "Setup",
    "SteeredSearch",
    "Steering",
    "Unit",
    "begin",
    "block_fitness",
    "replay",
    "start",
    "steer",
    "stored_setup",
]


class _Steer(ModuleType):
    """This package, which is also the function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Page:
        """As :func:`pynas.steer.steer`."""
        return steer(*args, **kwargs)


sys.modules[__name__].__class__ = _Steer
