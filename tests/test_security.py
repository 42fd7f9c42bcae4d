"""SECURITY.md names the test that holds each line, and the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()


def test_each_line_is_held_by_a_test_that_exists() -> None:
    table = PAGE.partition("| untrusted |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 10
    for row in table:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row)
        assert len(named) == 1, row
        file, function = named[0]
        tree = ast.parse((ROOT / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row


def test_what_is_untrusted_covers_what_is_read() -> None:
    for word in ("tables", "pickles", "stores", "weights", "images", "texts", "names", "evaluator"):
        assert re.search(rf"^\| [^|]*{word}", PAGE.partition("| untrusted |")[2], re.MULTILINE), word
    for word in ("models", "evaluators", "`module:object`"):
        assert re.search(rf"^\| [^|]*{word}", PAGE.partition("| untrusted |")[0], re.MULTILINE), word
