"""The command ``python -m pynas.testing.operator_fuzz``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from pynas._plural import counted
from pynas.testing.operator_fuzz._parent import MEMORY, fuzz


def main() -> int:
    """Print every fault; the exit code is 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m pynas.testing.operator_fuzz")
    parser.add_argument("--calls", type=int, default=20_000, help="number of calls")
    parser.add_argument("--seed", type=int, default=0, help="seed of the calls")
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes that calls may allocate; 0: any")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    chosen = parser.parse_args()
    report = fuzz(chosen.calls, chosen.seed, first=chosen.first, memory=chosen.memory)
    if chosen.json:
        print(json.dumps(asdict(report)))
        return 1 if report.faults else 0
    for fault in report.faults:
        print(f"call {fault.index}: {fault.op}: {fault.reason}\n    {fault.call or '(a sample unchanged)'}")
    print(
        f"{counted(report.calls, 'call')} in {report.seconds:.0f} s, {counted(len(report.faults), 'fault')}"
    )
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
