"""Facts about the machine and the software that produced a result."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "scipy", "sqlalchemy")


def collect() -> dict[str, Any]:
    """Versions, processor and time of start, as a JSON object; needs none of the packages."""
    versions = {"pynas": version("pynas-torch"), "python": platform.python_version()}
    versions |= {name: version(name) for name in _PACKAGES}
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "device": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
    }


def version(distribution: str) -> str:
    """Of an installed distribution, or that it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor(numbered: bool = False) -> str:
    """Name of the processor; ``numbered`` adds family and model, where two are sold under one name."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        first = ""
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in first.splitlines())}
    name = facts.get("model name") or platform.processor() or "unknown processor"
    if not (numbered and facts):
        return name
    return f"{name} (family {facts.get('cpu family', '?')} model {facts.get('model', '?')})"
