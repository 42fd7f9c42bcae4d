"""Neural architecture search in PyTorch with a C++/CUDA core.

>>> space = pynas.spaces.get("nasbench201")
>>> model = space.build(space.sample(random.Random(0)))
>>> scores = pynas.score(model, inputs, targets, proxies=["zico"])
>>> result = pynas.search(space, objectives=["zico"], budget=100)

``import pynas`` loads nothing of it: each part is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pynas import _foreign

if TYPE_CHECKING:
    from pynas import (
        analysis,
        bench,
        benchmarks,
        data,
        embedding,
        export,
        hardware,
        lissnas,
        nn,
        ops,
        proxies,
        ranking,
        report,
        spaces,
        stats,
        steer,
        store,
        strategies,
        supernet,
        tables,
        testing,
    )
    from pynas._errors import UserError, UserNotice
    from pynas.architecture import Architecture
    from pynas.evaluate import ProxyEvaluator, Score, score
    from pynas.run import SearchResult, search
    from pynas.trial import Evaluation, Status, Trial

_foreign.warn()

__version__ = "0.1.0"

_OBJECTS = {
    "Architecture": "pynas.architecture",
    "Evaluation": "pynas.trial",
    "ProxyEvaluator": "pynas.evaluate",
    "Score": "pynas.evaluate",
    "SearchResult": "pynas.run",
    "Status": "pynas.trial",
    "Trial": "pynas.trial",
    "UserError": "pynas._errors",
    "UserNotice": "pynas._errors",
    "score": "pynas.evaluate",
    "search": "pynas.run",
}

_UNLISTED = ("architecture", "evaluate", "run", "trial")  # their names are listed without them


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        found = getattr(importlib.import_module(_OBJECTS[name]), name)
    elif name in __all__ or name in _UNLISTED:
        found = importlib.import_module(f"pynas.{name}")
    else:
        raise AttributeError(f"module 'pynas' has no attribute {name!r}")
    globals()[name] = found  # the next use does not come here
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__all__ = [
    "Architecture",
    "Evaluation",
    "ProxyEvaluator",
    "Score",
    "SearchResult",
    "Status",
    "Trial",
    "UserError",
    "UserNotice",
    "analysis",
    "bench",
    "benchmarks",
    "data",
    "embedding",
    "export",
    "hardware",
    "lissnas",
    "nn",
    "ops",
    "proxies",
    "ranking",
    "report",
    "score",
    "search",
    "spaces",
    "stats",
    "steer",
    "store",
    "strategies",
    "supernet",
    "tables",
    "testing",
]
