from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_examples_run_as_pasted() -> None:
    _, *examples = blocks()
    assert len(examples) == 6
    namespace: dict[str, object] = {}
    exec("import torch, pynas", namespace)
    for block in examples:
        exec(block.replace("budget=20", "budget=2"), namespace)


def test_the_supernet_script_runs_as_pasted_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    script = blocks()[0]
    assert len(script.splitlines()) <= 60
    namespace: dict[str, object] = {}
    exec(script, namespace)
    fused, learned = capsys.readouterr().out.splitlines()
    assert fused == "4 mixed operations fused, 0 left as they were"
    assert int(learned.split(" %")[0]) > 60  # chance is a tenth
    assert float(namespace["right"]) > 0.6  # type: ignore[arg-type]


def test_every_target_and_command_it_names_exists() -> None:
    from pynas.cli import app

    text = README.read_text()
    commands = {command.name for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    assert set(re.findall(r"`pynas\s([a-z]+)", text)) == commands | groups
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_of_every_page_lead_somewhere() -> None:
    pages = [*README.parent.glob("*.md"), *README.parent.glob("docs/*.md")]
    links = [
        (page.name, page.parent / target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    ]
    assert len(links) > 20
    assert [(page, str(target)) for page, target in links if not target.exists()] == []
