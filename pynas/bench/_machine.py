"""What a measurement was made on, and what that machine can do at best."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch

import pynas


def describe(device: str = "cpu") -> dict[str, Any]:
    """Device, versions and settings that a timing depends on."""
    from pynas import _C

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "isa": _C.isa(),
        "torch": torch.__version__,
        "pynas": pynas.__version__,
        "python": platform.python_version(),
        "compiler": _C.compiler,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    stripped = {key.strip(): value.strip() for key, value in facts.items()}
    family, model = stripped.get("cpu family", "?"), stripped.get("model", "?")
    return f"{stripped.get('model name', platform.processor())} (family {family} model {model})"


def peak(device: str = "cpu", seconds: float = 1.0) -> tuple[float, float]:
    """Measured (FLOP/s, bytes/s): a large float32 matrix product, and a copy that no cache holds."""
    a = torch.ones(2048, 2048, device=device)
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(a, a), device, seconds)
    copy = _best(lambda: target.copy_(source), device, seconds)
    return 2 * 2048.0**3 / product, 2.0 * source.nbytes / copy


def _best(run: Any, device: str, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
