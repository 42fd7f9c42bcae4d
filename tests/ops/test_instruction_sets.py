"""Tests marked ``every_isa`` under each lower instruction set, which is chosen when pynas is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pynas import _C

TESTS = Path(__file__).resolve().parent.parent
LOWER = [isa for isa in _C.available_isas() if isa != _C.isa()]
FILES = ("ops", "spaces/test_nasbench101_cells.py")


@pytest.mark.slow
@pytest.mark.skipif("PYNAS_ISA" in os.environ, reason="runs under the instruction set of its environment")
@pytest.mark.parametrize("isa", LOWER)
def test_lower_instruction_set(isa: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "every_isa", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "no:xdist", *(str(TESTS / name) for name in FILES)],
        env={**os.environ, "PYNAS_ISA": isa},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{isa}: {done.stdout[-3000:]}"
    assert " passed" in done.stdout
