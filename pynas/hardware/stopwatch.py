"""Times a function on the host or on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SHORTEST = 2e-4  # seconds of a sample: long compared with the cost of the clock and the loop


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one run: median, 20th and 80th percentile of ``runs`` samples."""

    ms: float
    low: float
    high: float
    runs: int


class Stopwatch:
    """Median time of a function in inference mode, after a warm-up.

    A sample repeats the function for at least 0.2 ms and divides. On a GPU, events on its stream measure the
    time, so host work counts only if the device waits for it.

    Args:
        device: ``cpu`` or ``cuda``.
        seconds: Approximate time to sample one function.
        min_samples: Smallest number of samples.
    """

    def __init__(self, device: str = "cpu", seconds: float = 0.05, min_samples: int = 5) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._seconds, self._min_samples = seconds, min_samples

    @torch.inference_mode()
    def measure(self, run: Callable[[], object]) -> Timing:
        """Time ``run``, which must not change its inputs."""
        run()  # warm-up: allocates, chooses algorithms, compiles
        once = min(self._sample(run, 1) for _ in range(2))
        repeats = max(1, round(_SHORTEST / max(once, 1e-7)))
        samples: list[float] = []
        end = time.perf_counter() + self._seconds
        while len(samples) < self._min_samples or time.perf_counter() < end:
            samples.append(1e3 * self._sample(run, repeats) / repeats)
        # Quintiles, interpolated between samples.
        low, *_, high = statistics.quantiles(samples, n=5, method="inclusive")
        return Timing(statistics.median(samples), low, high, len(samples))

    def _sample(self, run: Callable[[], object], repeats: int) -> float:
        if self._cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(repeats):
                run()
            end.record()
            end.synchronize()
            return 1e-3 * float(begin.elapsed_time(end))
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return time.perf_counter() - start
