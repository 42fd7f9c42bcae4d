"""What the tests of a flavour share: its program runs once for every order of threads, and reports.

There is a test file for each flavour, so that their builds and runs go on side by side.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache

import emulation
import pytest

REASON = emulation.missing()
needs_emulation = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Thread orders show faults as wrong values. ThreadSanitizer needs no lucky order; unordered, it also sees
# races between the blocks of a launch, at such a cost in fibers that a few cases must do.
ORDERS = {
    "plain": ["forward 1", "reverse 1", "random 1", "random 2"],
    "address": ["random 3"],
    "thread": ["forward 1"],
}
CASES = emulation.case_names(emulation.sources())
KERNELS = [case for case in CASES if not case.startswith("planted_")]
EVERY = {"plain", "address", "thread"}
CAUGHT_BY: dict[str, set[str]] = {
    "planted_none": set(),
    "planted_early_return": EVERY,
    "planted_no_copy_wait": EVERY,
    "planted_missing_barrier": EVERY,
    "planted_shared_overrun": EVERY,
    "planted_divergent_barrier": EVERY,
    "planted_missing_bound": {"address"},
    "planted_race_in_block": {"thread"},
    "planted_race_between_blocks": set(),  # by unordered blocks alone: test_races_between_blocks
    "planted_shuffle_as_fence": {"thread"},
}


def run_cases(program: str, order: str, blocks: str, cases: Sequence[str]) -> dict[str, str]:
    """Runs the cases in one process, or several where a sanitizer ends one; returns what went wrong."""
    wrong: dict[str, str] = {}
    left = list(cases)
    while left:
        command = [program, *order.split(), blocks, *left]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        for name, report in re.findall(
            r"^BEGIN (\w+)$(.*?)(?=^BEGIN |\Z)", done.stderr, re.DOTALL | re.MULTILINE
        ):
            bad = any(
                sign in report
                for sign in ("WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error")
            )
            failed = bad or f"END {name} ok" not in report
            wrong[name] = f"{order}: {report[-3000:]}" if failed else ""
        assert left[0] in wrong, f"the program did not start: {done.stdout}{done.stderr}"
        left = [case for case in left if case not in wrong]
    return wrong


@cache
def results(flavour: str) -> dict[str, str]:
    """What is wrong with each case, in every thread order of the flavour."""
    program = str(emulation.build(flavour))
    runs = [run_cases(program, order, "ordered", CASES) for order in ORDERS[flavour]]
    return {case: "".join(run[case] for run in runs) for case in CASES}


def check_planted_fault(flavour: str, case: str) -> None:
    """A planted fault fails where it must and only there: the detectors detect, and report nothing else."""
    assert (results(flavour)[case] != "") == (flavour in CAUGHT_BY[case])
