"""What skipping the dead parts of a network saves: on a network's first score, and once they are known.

    python experiments/dead_parts.py --rounds 15

ZiCo's statistics (two successive batches, gradients of weights) of networks of NAS-Bench-201 as they are,
with edges that lead to nothing, in one process and on one thread. A round times three collections of each
network in random order: with nothing skipped, with the dead parts known, and with them to be found first.
Times are of the processor, so that other work on the machine counts for little; a ratio is the median over
rounds of that of two collections of one round. The record goes to benches/results/dead-parts.json.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from records import RESULTS, write

from pynas import spaces
from pynas.architecture import Architecture
from pynas.bench import describe
from pynas.stats import RunningGradMoments, _attempts, collect

RECORD = RESULTS / "dead-parts.json"
# Edge by edge: 0 none, 1 skip, 2 conv1x1, 3 conv3x3, 4 pool.
CELLS = {
    "a node that nobody reads": (3, 2, 0, 1, 0, 1),
    "two convolutions into zeros": (2, 0, 2, 3, 0, 0),
    "all edges live": (3, 1, 2, 4, 1, 2),
}  # fmt: skip


def collected(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    collect(
        model, images, labels, needs=[RunningGradMoments(parameters="weights")], micro_batches=2,
        training=True, seed=0,
    )  # fmt: skip
    return time.process_time() - start


def measured(cell: tuple[int, ...], batch: int, rounds: int) -> dict[str, Any]:
    """Times of one network."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (batch,), generator=generator)
    torch.manual_seed(0)
    model = spaces.get("nasbench201").build(Architecture("nasbench201", cell), num_classes=10)
    worth_while = _attempts.worth_while
    times: dict[str, list[float]] = {"nothing skipped": [], "known": [], "first": []}
    order, shuffle = list(times), random.Random(0).shuffle
    for round_ in range(rounds + 1):  # the first warms up
        shuffle(order)
        for what in order:
            if what == "first":
                _attempts._PLANS.clear()
            elif what == "known" and not _attempts._PLANS:
                collected(model, images, labels)
            if what == "nothing skipped":
                _attempts.worth_while = lambda *_: False
            try:
                seconds = collected(model, images, labels)
            finally:
                _attempts.worth_while = worth_while
            if round_:
                times[what].append(seconds)
    ratio = {
        what: statistics.median(a / b for a, b in zip(times["nothing skipped"], times[what], strict=True))
        for what in ("known", "first")
    }
    return {
        "batch": batch,
        "seconds": {what: round(statistics.median(t), 4) for what, t in times.items()},
        "times_as_fast": {what: round(r, 3) for what, r in ratio.items()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256], help="images, in two halves")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name, cell in CELLS.items():
        for batch in given.batches:
            one = {"network": name, "cell": list(cell)} | measured(cell, batch, given.rounds)
            print(one, flush=True)
            found.append(one)
    write(given.record, {"rounds": given.rounds, "threads": 1, **describe("cpu"), "networks": found})


if __name__ == "__main__":
    main()
