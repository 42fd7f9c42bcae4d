"""docs/weight_sharing.md: its examples run, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pynas.supernet._build import SPACES

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "weight_sharing.md"


def test_it_names_every_space_and_only_options_that_exist() -> None:
    from typer.main import get_command

    from pynas.cli.analyze import app

    text = DOCS.read_text()
    table = text.split("## What is measured")[0]
    assert {name for name in SPACES if f"`{name}`" in table} == set(SPACES)
    command = get_command(app).commands["weight-sharing"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(--[a-z][a-z-]+)", text)) <= known
