"""Moments and norms of samples' gradients by pynas and by the libraries made for these (extra ``peers``).

pytest benches/test_peers.py --benchmark-enable -s [--record FILE]
python benches/test_peers.py memory NETWORK STATISTIC LIBRARY      peak memory of one of them, in MiB

Target: faster than each of them, and no more memory than the most frugal.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import peers

from pynas.bench import Case, Problem, Record, describe, measure

BATCH = 64
# Opacus and BackPACK warn of their own use of PyTorch.
pytestmark = [pytest.mark.parametrize("network", peers.NETWORKS), pytest.mark.filterwarnings("ignore")]


def machine(refused: Mapping[str, str]) -> dict[str, Any]:
    """The machine, the libraries' versions, and which of them do not run and why."""
    from importlib import metadata

    facts = dict(describe())
    for package in ("opacus", "backpack-for-pytorch"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = None
    return facts | {"refused": dict(refused)}


@pytest.mark.parametrize("statistic", peers.STATISTICS)
def test_time(
    network: str, statistic: str, request: pytest.FixtureRequest, record: Callable[[Record], None]
) -> None:
    quick = not request.config.getoption("benchmark_enable")
    if quick and network == "resnet18_group_norm":
        pytest.skip("takes seconds: run with --benchmark-enable")
    running, refused = peers.implementations(network, statistic, 4 if quick else BATCH)
    for name, reason in refused.items():
        print(f"\n{name}: {reason}")
    case = Case(
        f"peers/{network}_{statistic}",
        lambda: Problem(running, lambda: peers.check(running)),
        targets={name: (1.0, 0.8) for name in running if name not in ("pynas", "plain")},
    )
    facts = machine(refused)
    slow = network == "resnet18_group_norm"
    rounds = 1 if quick else 3 if slow else 5
    record(measure(case, seconds=0.0 if quick or slow else 12.0, min_rounds=rounds, machine=facts))


def test_memory(network: str, request: pytest.FixtureRequest, record: Callable[[Record], None]) -> None:
    """Of moments; a peak is the same from run to run."""
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("a measurement: run with --benchmark-enable")
    peaks: dict[str, list[float]] = {}
    for name in peers.LIBRARIES:
        command = [sys.executable, __file__, "memory", network, "moments", name]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        if found.returncode == 0:
            peaks[name] = [float(found.stdout.split()[-1])]
    record(Record.of(f"peers/{network}_moments_peak_memory", peaks, machine=machine({}), unit="MiB"))


def peak_memory(network: str, statistic: str, library: str) -> float:
    """MiB beyond what is resident before the pass."""
    import torch

    torch.set_num_threads(1)
    peers.implementation(library, network, statistic, 2)()  # code and scratch are loaded on first use
    run = peers.implementation(library, network, statistic, BATCH)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(peak - before, 0) / 2**20  # the kernel counts pages in batches


if __name__ == "__main__":
    print(peak_memory(*sys.argv[2:5]))
