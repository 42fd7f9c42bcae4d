from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "supernets.md"


def test_the_script_runs_as_pasted_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(script.splitlines()) <= 60
    namespace: dict[str, object] = {}
    exec(script, namespace)
    fused, learned = capsys.readouterr().out.splitlines()
    assert fused == "4 mixed operations fused, 0 left as they were"
    assert int(learned.split(" %")[0]) > 60  # chance is a tenth
    assert float(namespace["right"]) > 0.6  # type: ignore[arg-type]
