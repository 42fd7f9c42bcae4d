"""Costs of networks: parameters, multiply-adds, activations, memory, and latency on real devices.

    table = pynas.hardware.LatencyTable.build("nasbench201", path="my-machine.json")
    table.predict(arch), table.error()
    raspi4 = pynas.hardware.load("hw:nb201_hw.npz:raspi4", space)[0]

Reading models of devices needs no torch; counting and measuring do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pynas.hardware._fit import Correction, PredictionError
from pynas.hardware._load import kinds, load
from pynas.hardware.latency_table import LatencyTable
from pynas.hardware.model import HardwareModel, cautions
from pynas.hardware.tabular import TabularLatency

if TYPE_CHECKING:
    from pynas.hardware._network import Task
    from pynas.hardware._profile import Profile, profile, profile_architecture
    from pynas.hardware.counts import MacCount, ParameterCount, macs, params
    from pynas.hardware.runtimes import Runtime
    from pynas.hardware.stopwatch import Stopwatch, Timing

_LAZY = {  # these load torch
    "MacCount": "counts",
    "ParameterCount": "counts",
    "Profile": "_profile",
    "Runtime": "runtimes",
    "Stopwatch": "stopwatch",
    "Task": "_network",
    "Timing": "stopwatch",
    "macs": "counts",
    "params": "counts",
    "profile": "_profile",
    "profile_architecture": "_profile",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"pynas.hardware.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'pynas.hardware' has no attribute {name!r}")


__all__ = [
    "Correction",
    "HardwareModel",
    "LatencyTable",
    "MacCount",
    "ParameterCount",
    "PredictionError",
    "Profile",
    "Runtime",
    "Stopwatch",
    "TabularLatency",
    "Task",
    "Timing",
    "cautions",
    "kinds",
    "load",
    "macs",
    "params",
    "profile",
    "profile_architecture",
]
