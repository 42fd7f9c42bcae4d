"""Times calls on a GPU by replays of CUDA graphs, and measures what the GPU can do at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

INNER = 8  # calls in a graph


def seconds_per_call(calls: Sequence[Callable[[], object]], budget: float, device: str = "cuda") -> float:
    """Median time of a call, over rounds of all ``calls``.

    On a GPU a round is a replay of a captured graph: between two events around a call, an idle GPU waits for
    the 30 to 60 us that Python and the dispatcher take. Calls that cannot be captured run eagerly, enough
    in a round to keep the GPU busy.

    Args:
        calls: The same call on other data each, so that a cache holds none of them; called in turn.
        budget: Seconds for the rounds.
        device: ``cuda``, or ``cpu`` to try a script.
    """
    rounds = -(-INNER // len(calls))

    def several() -> None:
        for _ in range(rounds):
            for call in calls:
                call()

    for call in calls:  # loads kernels, fills caches of plans
        call()
    if device == "cpu":
        return _by_clock(several, budget) / (rounds * len(calls))
    run = _captured(several) or several
    run()
    torch.cuda.synchronize()
    times: list[float] = []
    while sum(times) < budget or len(times) < 5:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times) / (rounds * len(calls))


def _captured(run: Callable[[], None]) -> Callable[[], None] | None:
    """A replay of what ``run`` launches; None if that waits for the GPU, or is not capturable otherwise."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay


def _by_clock(run: Callable[[], None], budget: float) -> float:
    times: list[float] = []
    while sum(times) < budget or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass(frozen=True)
class Ceilings:
    """What a device was seen to do at most.

    Attributes:
        bandwidth: Bytes read and written in a second by a copy.
        rates: Floating-point operations in a second of a large product by dtype; float32 without TF32.
    """

    bandwidth: float
    rates: dict[torch.dtype, float]

    @classmethod
    def measure(cls, device: str = "cuda") -> Ceilings:
        """Measure them on random data: constant data take less power, and let a GPU clock higher."""
        is_gpu = device != "cpu"
        source = torch.randn(1 << (28 if is_gpu else 20), device=device)
        target = torch.empty_like(source)
        copy = seconds_per_call([partial(target.copy_, source)], 0.1, device)
        rates = {}
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            n = (8192 if dtype == torch.bfloat16 else 4096) if is_gpu else 128
            a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
            rates[dtype] = 2 * n**3 / seconds_per_call([partial(torch.matmul, a, b)], 0.1, device)
        return cls(2 * source.nbytes / copy, rates)

    def bound(self, operations: float, bytes_moved: float, dtype: torch.dtype) -> float:
        """Seconds that a call needs at least: the larger of operations over rate and bytes over bandwidth."""
        rate = self.rates.get(dtype, self.rates[torch.bfloat16])
        return max(operations / rate, bytes_moved / self.bandwidth)
