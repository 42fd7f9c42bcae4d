"""collect(GradMoments) of whole networks against a plain forward and backward pass: time and peak memory.

pytest benches/test_collect.py --benchmark-enable -s [--record FILE]
python benches/test_collect.py memory resnet18 64 pynas      peak memory of one implementation, in MiB

Targets: time 1.15, aim 1.0; memory 1.15, aim 1.05.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from pynas.bench import CASES, Record, describe, measure, peak
from pynas.bench.collecting import implementation
from pynas.bench.networks import NETWORKS


@pytest.mark.parametrize("network", NETWORKS)
def test_time(network: str, request: pytest.FixtureRequest, record: Callable[[Record], None]) -> None:
    case = CASES.get(f"collect/{network}")
    if request.config.getoption("benchmark_enable"):
        record(measure(case, seconds=8.0, min_rounds=7, peak=peak(), machine=describe()))
    else:
        record(measure(case, seconds=0.01, min_rounds=1))


@pytest.mark.parametrize("batch", [64, 512])
@pytest.mark.parametrize("network", NETWORKS)
def test_memory(
    network: str, batch: int, request: pytest.FixtureRequest, record: Callable[[Record], None]
) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("a measurement: run with --benchmark-enable")
    peaks: dict[str, list[float]] = {"pynas": [], "nchw": [], "channels_last": []}
    for _ in range(3):
        for name, values in peaks.items():
            command = [sys.executable, __file__, "memory", network, str(batch), name]
            values.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    name = f"collect/{network}_B{batch}_peak_memory"
    record(Record.of(name, peaks, must=1.15, aim=1.05, machine=describe(), unit="MiB"))


def peak_memory(network: str, batch: int, name: str) -> float:
    """MiB beyond what is resident before the pass."""
    run = implementation(name, network, batch)
    implementation(name, network, 2)()  # libraries load their code and scratch on first use
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


if __name__ == "__main__":
    print(peak_memory(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
