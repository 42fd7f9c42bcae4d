"""docs/supernets.md: its example runs, goes on where it was, and finds something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "supernets.md"


@pytest.mark.usefixtures("one_thread")
def test_the_example_runs_as_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found = []
    for _ in range(2):  # the second finds the first one's checkpoints
        namespace: dict[str, Any] = {}
        exec(example, namespace)
        found.append(float(capsys.readouterr().out))
    assert found[0] > 0.3  # chance is a tenth
    assert found[1] == found[0]
    assert (tmp_path / "run1").is_dir()
