"""The CUDA kernels run on the CPU in several orders of threads: values against double precision."""

from __future__ import annotations

import pytest
from emulation_runs import CAUGHT_BY, KERNELS, check_planted_fault, needs_emulation, results

pytestmark = [pytest.mark.slow, needs_emulation]


@pytest.mark.parametrize("case", KERNELS)
def test_kernel(case: str) -> None:
    assert results("plain")[case] == ""


@pytest.mark.parametrize("case", CAUGHT_BY)
def test_planted_fault_is_caught(case: str) -> None:
    check_planted_fault("plain", case)
