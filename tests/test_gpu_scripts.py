"""The scripts for a machine with a GPU run, as far as a CPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pynas.testing.ops import SPECS

BENCHES = Path(__file__).parents[1] / "benches"


@pytest.fixture(autouse=True)
def beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHES)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(script: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of a script, run in this process."""
    module = pytest.importorskip(script)
    monkeypatch.setattr(sys, "argv", [script, "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    return ended.value.code


def test_every_operator_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run("gpu_first_look", monkeypatch, "smoke", "--save", str(tmp_path / "a.jsonl")) == 0
    found = lines(tmp_path / "a.jsonl")
    assert len(found) >= 36
    assert all(line["ok"] for line in found)


def test_a_wrong_operator_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = SPECS["linear_grad_norms"]

    def wrong(*arguments: Any, **options: Any) -> Any:
        return spec.function(*arguments, **options) * (1 + 1e-4)

    monkeypatch.setitem(SPECS, "linear_grad_norms", replace(spec, function=wrong))
    assert run("gpu_first_look", monkeypatch, "smoke", "--save", str(tmp_path / "a.jsonl")) == 1
    assert any(not line["ok"] for line in lines(tmp_path / "a.jsonl"))


def test_every_kernel_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert run("gpu_kernels", monkeypatch, "--seconds", "0", "--save", str(path)) == 0
    assert len(lines(path)) >= 20
    assert all(line["pynas"] for line in lines(path))


def test_the_shell_script_parses() -> None:
    subprocess.run(["bash", "-n", BENCHES / "run_on_gpu.sh"], check=True)
