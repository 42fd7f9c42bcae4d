"""docs/spaces.md says what the code says, and its examples run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from pynas import spaces
from pynas.spaces.description import describe

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "spaces.md").read_text()


def test_every_space_is_described_as_it_is() -> None:
    spec = importlib.util.spec_from_file_location("make_spaces", DOCS / "make_spaces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = PAGE.split(module.MARK)[1].strip()
    assert written == module.sections().strip(), "run python docs/make_spaces.py"


@pytest.mark.parametrize("name", spaces.names())
def test_every_space_says_where_it_is_from(name: str) -> None:
    found = describe(spaces.get(name))
    assert f"\n## {name}\n" in PAGE
    assert re.search(r"(19|20)\d\d", found.source), "the source, with its year"
    assert all(option.text for option in found.options), "every option is explained"
