"""The CPU kernels under AddressSanitizer and UBSan, without torch, by the cases of the CUDA kernels."""

from __future__ import annotations

import shutil
from functools import cache

import emulation
import pytest
from emulation import HERE, ROOT
from emulation_runs import run_cases

from pynas import _C

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on the PATH"),
]

# As cmake/kernels.cmake has them.
ISA_FLAGS = {
    "generic": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
TESTS = sorted(set(HERE.glob("test_*.cpp")) - {HERE / "test_planted_faults.cpp"})
CASES = emulation.case_names(TESTS)
CAUGHT = {"planted_write_beyond", "planted_overflow", "planted_wrong_value"}


@cache
def results() -> dict[str, str]:
    """What is wrong with each case, under the instruction set in use."""
    isa = _C.isa()
    operators = [path.stem.removeprefix("test_") for path in TESTS]
    kernels = sorted(path for name in operators for path in ROOT.glob(f"csrc/ops/{name}/**/*_cpu.cpp"))
    flags = ["-std=c++20", *emulation.FLAVOURS["address"], *ISA_FLAGS[isa], f"-DPYNAS_ISA_NS={isa}"]
    flags += ["-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    program = emulation.build_program(f"cpu-{isa}", [*TESTS, *kernels], flags)
    return run_cases(str(program), "forward 1", "ordered", CASES)


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    assert (results()[case] != "") == (case in CAUGHT), results()[case]
