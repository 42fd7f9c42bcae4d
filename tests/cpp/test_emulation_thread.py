"""The CUDA kernels run on the CPU under ThreadSanitizer: races within a block and between blocks."""

from __future__ import annotations

import emulation
import pytest
from emulation_runs import CAUGHT_BY, KERNELS, check_planted_fault, needs_emulation, results, run_cases

pytestmark = [pytest.mark.long, needs_emulation]

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


@pytest.mark.parametrize("case", KERNELS)
def test_kernel(case: str) -> None:
    assert results("thread")[case] == ""


@pytest.mark.parametrize("case", CAUGHT_BY)
def test_planted_fault_is_caught(case: str) -> None:
    check_planted_fault("thread", case)


def test_races_between_blocks() -> None:
    wrong = run_cases(str(emulation.build("thread")), "forward 1", "unordered", UNORDERED)
    assert "data race" in wrong.pop("planted_race_between_blocks")
    assert not any(wrong.values()), "".join(wrong.values())
