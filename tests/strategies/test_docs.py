"""docs/searching.md: its examples run, and it names every strategy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pynas import strategies

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "searching.md"


@pytest.mark.usefixtures("one_thread")
def test_the_examples_run_as_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(examples) == 6
    namespace: dict[str, Any] = {}
    for example in examples:
        exec(example, namespace)
    assert namespace["result"].best.evaluation.scores["accuracy"] >= 88  # 90 is the best of all
    sizes = [iteration.size for iteration in namespace["shrunk"].iterations]
    assert sizes[-1] < sizes[0] < namespace["space"].size
    shifted = namespace["shifted"]
    assert len(shifted.candidates) == 3 * 8
    assert shifted.best.accuracy > 0.3  # chance is a tenth
    assert capsys.readouterr().out


def test_it_names_every_strategy() -> None:
    table = DOCS.read_text().split("## Strategies")[1].split("##")[0]
    assert set(re.findall(r"^\| `([a-z0-9_]+)`", table, re.MULTILINE)) == set(strategies.names())
