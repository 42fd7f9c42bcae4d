from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_examples_run_as_pasted() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 4
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("budget=20", "budget=2"), namespace)


def test_every_target_and_command_it_names_exists() -> None:
    from pynas.cli import app

    text = README.read_text()
    commands = {command.name for command in app.registered_commands}
    assert set(re.findall(r"`pynas ([a-z]+)", text)) == commands
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
