"""Neural architecture search in PyTorch with a C++/CUDA core.

>>> space = pynas.spaces.get("nasbench201")
>>> model = space.build(space.sample(random.Random(0)))
>>> scores = pynas.score(model, inputs, targets, proxies=["zico"])
>>> result = pynas.search(space, objectives=["zico"], budget=100)

``pynas.score`` and everything else that needs torch is loaded on first use: a strategy, a store or a report
starts without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pynas import _foreign, spaces, strategies, tables
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.run import SearchResult, search
from pynas.trial import Evaluation, Status, Trial

if TYPE_CHECKING:
    from pynas import bench, benchmarks, data, hardware, nn, ops, proxies, stats, steer, testing
    from pynas.evaluate import ProxyEvaluator, Score, score

_foreign.warn()

__version__ = "0.1.0"

_LAZY = {"ProxyEvaluator": "pynas.evaluate", "Score": "pynas.evaluate", "score": "pynas.evaluate"}
_LAZY_MODULES = ("bench", "benchmarks", "data", "nn", "ops", "proxies", "stats", "steer", "testing")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(f"pynas.{name}")
    raise AttributeError(f"module 'pynas' has no attribute {name!r}")


__all__ = [
    "Architecture",
    "Evaluation",
    "ProxyEvaluator",
    "Score",
    "SearchResult",
    "Status",
    "Trial",
    "UserError",
    "bench",
    "benchmarks",
    "data",
    "hardware",
    "nn",
    "ops",
    "proxies",
    "score",
    "search",
    "spaces",
    "stats",
    "steer",
    "strategies",
    "tables",
    "testing",
]
