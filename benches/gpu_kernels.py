"""Times the CUDA kernels against their roofline bounds and against what PyTorch does on the same inputs.

    python benches/gpu_kernels.py --save results.jsonl [--seconds 0.1] [--device cpu]

The bound of a case is the larger of operations over the rate of a large matrix product and bytes, each tensor
once, over the bandwidth of a copy; both are measured first, on random data. Inputs rotate among copies that
together exceed the L2 cache, and calls are replayed by CUDA graphs. Convolutions are checked against float64
before they are timed, the other operators by gpu_first_look.py. ``--device cpu`` only tries the script.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from gpu_cases import KernelCase, kernel_cases
from gpu_timing import Ceilings, seconds_per_call


def run(case: KernelCase, ceilings: Ceilings, budget: float, device: str) -> dict[str, float | None]:
    """Error, and seconds of the bound, of the operator and of PyTorch."""
    error = None if case.check is None else case.check()
    assert error is None or error < 1e-4, f"relative error {error:.1e}"
    ours = seconds_per_call(case.calls(case.run), budget, device)
    theirs = None
    if case.baseline is not None:
        theirs = seconds_per_call(case.calls(case.baseline), budget, device)
    bound = ceilings.bound(case.operations, case.bytes_moved, case.dtype)
    return {"error": error, "bound": bound, "pynas": ours, "torch": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="append a JSON line per case, as it is measured")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each implementation")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = options.device
    ceilings = Ceilings.measure(device)
    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "bandwidth": ceilings.bandwidth,
        **{str(dtype): rate for dtype, rate in ceilings.rates.items()},
    }
    print(json.dumps(facts), flush=True)
    print(f"{'case':<62} {'bound us':>9} {'pynas us':>9} {'of bound':>9} {'torch us':>9}", flush=True)
    failed = 0
    for case in kernel_cases(device, small=device == "cpu"):
        if options.only not in case.name:
            continue
        record: dict[str, object] = {**facts, "case": case.name}
        try:
            times = run(case, ceilings, options.seconds, device)
        except (AssertionError, RuntimeError, ValueError) as error:  # the others are worth their time
            failed += 1
            record["failed"] = f"{type(error).__name__}: {error}"[:300]
            print(f"{case.name:<62} {record['failed']}", flush=True)
        else:
            record |= times
            bound, ours, theirs = (times[name] for name in ("bound", "pynas", "torch"))
            assert bound is not None
            assert ours is not None
            shown = "" if theirs is None else f"{1e6 * theirs:9.1f}"
            share = f"{bound / ours:9.0%}"
            print(f"{case.name:<62} {1e6 * bound:9.1f} {1e6 * ours:9.1f} {share} {shown}", flush=True)
        if options.save is not None:
            with options.save.open("a") as file:
                file.write(json.dumps(record) + "\n")
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    main()
