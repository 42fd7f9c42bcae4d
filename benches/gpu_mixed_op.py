"""Supernet edges on a GPU: one operator against the loop over candidates, eager and compiled.

    python benches/gpu_mixed_op.py --save results.jsonl [--seconds 2]

Forward and backward in training mode, float32 without TF32; every result and gradient is checked against
float64 first, and rounds alternate in random order. Aims: 6 times as fast as the eager loop, twice as fast
as torch.compile.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from pynas.bench import Case, describe, measure, peak
from pynas.bench.mixed_edges import CHANNELS_LAST, COMPILED, EDGES, NCHW, edge_case

AIMS = {NCHW: (1.0, 1 / 6), CHANNELS_LAST: (1.0, 1 / 6), COMPILED: (1.0, 1 / 2)}


def cases() -> list[Case]:
    found = []
    for family, stride in (("darts", 1), ("darts", 2), ("nasbench201", 1)):
        for channels, side in EDGES:
            name = f"mixed_op/{family}{'_stride2' if stride == 2 else ''}_64x{channels}x{side}x{side}"
            make = partial(edge_case, family, channels, side, stride, list(AIMS), "cuda")
            found.append(Case(name, make, targets=AIMS))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="append a JSON line per case")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for the rounds of a case")
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    best, machine, failed = peak("cuda"), describe("cuda"), 0
    print(machine, f"{best[0] / 1e12:.1f} TFLOP/s, {best[1] / 1e12:.2f} TB/s")
    for case in cases():
        try:
            record = measure(
                case, seconds=options.seconds, peak=best, machine=machine, synchronize=torch.cuda.synchronize
            )
        except (AssertionError, RuntimeError) as error:  # the other cases are worth their time all the same
            print(f"{case.name}: {error}")
            failed += 1
            continue
        ours, floor = record.timings["pynas"].p50, record.floor_seconds or 0.0
        against = ", ".join(f"{1 / ratio[1]:.2f} x {name}" for name, ratio in record.ratios.items())
        print(f"{case.name:<44} {1e6 * ours:9.1f} us, floor {1e6 * floor:8.1f} us: {against}")
        if options.save is not None:
            record.append_to(options.save)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
