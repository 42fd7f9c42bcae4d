"""The machine of a measurement, and its peak rates."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

import pynas._C as _C
from pynas._io.provenance import processor, version


def describe(device: str = "cpu") -> dict[str, Any]:
    """Device, versions and settings that a timing depends on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(numbered=True),
        "threads": torch.get_num_threads(),
        "isa": _C.isa(),
        "torch": torch.__version__,
        "pynas": version("pynas-torch"),
        "python": platform.python_version(),
        "compiler": _C.compiler,
    }


@cache
def peak(device: str = "cpu", seconds: float = 1.0) -> tuple[float, float]:
    """Measured peak (FLOP/s, bytes/s) in float32: the best in ``seconds`` each, once per process.

    Arithmetic on a CPU: multiply-adds in registers, with the instruction set in use and torch's number of
    threads. A matrix product would depend on its library and, on a shared machine, be off by up to half.
    Arithmetic on a GPU: a large matrix product. Memory: the better of reading and copying arrays larger than
    the caches.
    """
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    memory: list[Callable[[], float]] = [lambda: 2.0 * target.copy_(source).nbytes]
    if device == "cuda":
        a = torch.randn(4096, 4096, device=device)
        products: list[Callable[[], float]] = [lambda: 2.0 * torch.mm(a, a).numel() * a.shape[1]]
    else:
        products = [lambda: _C.multiply_adds(2_000_000)]
        memory.append(lambda: _C.read_memory(source.numpy()))
    return _rate(products, device, seconds), _rate(memory, device, seconds)


def _rate(runs: Sequence[Callable[[], float]], device: str, seconds: float) -> float:
    """The highest rate that any of ``runs`` reaches; each returns the amount of work that it did."""
    best = 0.0
    for run in runs:
        run()
        end = time.perf_counter() + seconds / len(runs)
        while True:
            start = time.perf_counter()
            amount = run()
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            best = max(best, amount / (now - start))
            if now > end:
                break
    return best
