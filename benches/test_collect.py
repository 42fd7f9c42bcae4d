"""collect(GradMoments) of whole networks against a plain forward and backward pass: time and peak memory.

pytest benches/test_collect.py --benchmark-enable -s     time (must 1.15, aim 1.0), memory (1.15, 1.05)
python benches/test_collect.py memory resnet18 64 plain      peak memory of one contender, in MiB
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from pynas.bench import CASES, measure
from pynas.bench._collect import contender
from pynas.bench._networks import NETWORKS


@pytest.mark.parametrize("network", NETWORKS)
def test_time(network: str, request: pytest.FixtureRequest) -> None:
    seconds = 8.0 if request.config.getoption("benchmark_enable") else 0.01
    record = measure(
        CASES.get(f"collect/{network}"),
        seconds=seconds,
        min_rounds=1 if seconds < 1 else 7,
    )
    print(f"\n{network}: {record.ratio:.3f} of {record.best_other}, spread {record.ratio_spread}")
    for name, t in record.timings.items():
        print(f"   {name:14s} {1e3 * t.p50:8.1f} ms ({t.rounds} rounds)")


@pytest.mark.parametrize("batch", [64, 512])
@pytest.mark.parametrize("network", NETWORKS)
def test_memory(network: str, batch: int, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("a measurement: run with --benchmark-enable")
    peaks = {}
    for name in ("pynas", "nchw", "channels_last"):
        command = [sys.executable, __file__, "memory", network, str(batch), name]
        peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    best = min(peaks["nchw"], peaks["channels_last"])
    print(f"\n{network} B={batch}: {peaks['pynas'] / best:.3f} of plain ({peaks} MiB beyond model and data)")


def peak_memory(network: str, batch: int, name: str) -> float:
    """MiB beyond what is resident before the pass."""
    run = contender(name, network, batch)
    contender(name, network, 2)()  # libraries load their code and scratch on first use
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


if __name__ == "__main__":
    print(peak_memory(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
