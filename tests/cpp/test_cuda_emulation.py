"""The CUDA kernels run on the CPU: values against double precision; races, bounds, barriers by sanitizers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache

import emulation
import pytest

REASON = emulation.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Thread orders show faults as wrong values. ThreadSanitizer needs no lucky order; unordered, it also sees
# races between the blocks of a launch, at such a cost in fibers that a few cases must do.
ORDERS = {
    "plain": ["forward 1", "reverse 1", "random 1", "random 2"],
    "address": ["random 3"],
    "thread": ["forward 1"],
}
CASES = emulation.case_names()
KERNELS = [case for case in CASES if not case.startswith("planted_")]
UNORDERED = [
    "planted_race_between_blocks",
    "sample_grad_strided_dilated",
    "sample_grad_row_splits",
    "sample_grad_depthwise",
    "sample_grad_conv_float64",
    "affine_group_norm",
    "embedding_float32",
    "depthwise_float32",
    "pool3x3_float32",
    "normalized_sum_rows",
]
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


@pytest.mark.parametrize("flavour", ORDERS)
@pytest.mark.parametrize("case", KERNELS)
def test_kernel(flavour: str, case: str) -> None:
    assert results(flavour)[case] == ""


@pytest.mark.parametrize("flavour", ORDERS)
@pytest.mark.parametrize("case", CAUGHT_BY)
def test_planted_fault_is_caught(flavour: str, case: str) -> None:
    assert (results(flavour)[case] != "") == (flavour in CAUGHT_BY[case])


def test_races_between_blocks() -> None:
    wrong = run_cases(str(emulation.build("thread")), "forward 1", "unordered", UNORDERED)
    assert "data race" in wrong.pop("planted_race_between_blocks")
    assert not any(wrong.values()), "".join(wrong.values())
