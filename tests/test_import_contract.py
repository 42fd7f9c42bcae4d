"""Who may import whom: a row for every package and module of pynas, held by reading the sources.

``python tests/test_import_contract.py`` draws the table into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pynas"
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- written by tests/test_import_contract.py -->\n", "<!-- end -->"

# What every row may import: errors, names, files, and the values that everything is about.
BOTTOM: dict[str, set[str]] = {
    "_errors": set(),
    "_foreign": set(),
    "_C": set(),
    "_generators": set(),
    "_plural": set(),
    "_io": {"_errors"},
    "_named": {"_errors"},
    "_registry": {"_errors", "_named"},
    "_user_values": {"_errors"},
    "_identity": {"_errors"},
    "architecture": {"_io"},
    "trial": {"architecture"},
}
# Each row imports from the bottom and from what it names here, and nothing else.
ROWS: dict[str, set[str]] = {
    "ops": set(),
    "nn": {"ops"},
    "stats": {"nn", "ops"},
    "spaces": {"nn"},
    "hardware": {"stats", "spaces"},
    "ranking": set(),
    "data": set(),
    "store": set(),
    "tables": {"spaces"},
    "benchmarks": {"tables"},
    "embedding": {"spaces"},
    "export": {"nn", "spaces", "store"},
    "lissnas": {"spaces"},
    "proxies": {"stats", "hardware", "ranking", "ops"},
    "strategies": {"spaces", "embedding", "ranking"},
    "supernet": {"strategies", "spaces", "stats", "ranking", "nn", "ops"},
    "evaluate": {"data", "proxies", "spaces", "stats", "ops"},
    "analysis": {"supernet", "spaces", "data", "ranking", "ops"},
    "run": {
        "evaluate",
        "data",
        "export",
        "hardware",
        "proxies",
        "ranking",
        "spaces",
        "store",
        "strategies",
        "tables",
    },
    "report": {"run", "store", "ranking", "hardware", "analysis", "spaces"},
    "steer": {
        *("data", "evaluate", "export", "hardware", "ranking", "report", "run", "spaces", "store"),
        *("strategies", "supernet", "tables"),
    },
    "bench": {"evaluate", "supernet", "strategies", "proxies", "stats", "spaces", "nn", "ops"},
}
# The face of the package, and what stands above it: commands, and tests for users.
TOP: dict[str, set[str]] = {"pynas": {*ROWS}, "cli": {*ROWS, "pynas"}, "testing": {*ROWS, "pynas", "cli"}}
TYPING_ONLY = {("pynas", "testing")}
TABLE = BOTTOM | {row: below | set(BOTTOM) for row, below in (ROWS | TOP).items()}
WITHOUT_TORCH = {
    *("strategies", "store", "report", "ranking", "run", "tables", "benchmarks", "architecture", "trial"),
    *("_errors", "_foreign", "_identity", "_named", "_plural", "_registry", "_user_values"),
}


def row_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "pynas" if first == "__init__" else first


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Every imported name, in full."""
    tree = parsed(path)
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports of pynas, each name with the row that it is of."""
    for name in imports(path):
        if name == "pynas" or name.startswith("pynas."):
            first = [*name.split("."), "pynas"][1]
            yield name, first if first in TABLE else "pynas"


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_row() -> None:
    assert {row_of(path) for path in SOURCES} | {"_C"} == set(TABLE)


def test_the_table_has_no_cycle() -> None:
    TopologicalSorter(TABLE).prepare()


def test_imports_are_in_the_table() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in SOURCES
        for name, row in arrows(path)
        if row not in TABLE[row_of(path)] | {row_of(path)} and (row_of(path), row) not in TYPING_ONLY
    ]
    assert not wrong


def test_the_table_names_nothing_that_is_not_imported() -> None:
    found: dict[str, set[str]] = {row: set() for row in TABLE}
    for path in SOURCES:
        found[row_of(path)] |= {row for _, row in arrows(path)}
    assert {row: below - found[row] for row, below in ROWS.items() if below - found[row]} == {}


def test_private_names_stay_in_their_package() -> None:
    """Names of pynas as a whole, such as ``pynas._io``, are every package's."""
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in SOURCES
        for name, row in arrows(path)
        if row != row_of(path) and any(p[0] == "_" and p != "__version__" for p in name.split(".")[2:])
    ]
    assert not wrong


def test_the_search_half_knows_no_torch() -> None:
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if row_of(path) in WITHOUT_TORCH
        and "torch" in {name.split(".")[0] for name in imports(path, top_level_only=True)}
    ]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["torch", "scipy.stats"])
def test_importing_pynas_is_quick(slow: str) -> None:
    code = f"import sys, pynas.cli; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def picture() -> str:
    """The rows by floors: each stands one above the highest of those that it imports."""
    floors: dict[str, int] = {}
    for row in TopologicalSorter(TABLE).static_order():
        below = TABLE[row] - (set(BOTTOM) if row not in BOTTOM else set())
        floors[row] = 1 + max((floors[each] for each in below), default=0 if row in BOTTOM else 2)
    lines = []
    for floor in sorted(set(floors.values()), reverse=True):
        for row in sorted(row for row in floors if floors[row] == floor):
            below = sorted(ROWS.get(row, set()) if row not in BOTTOM else BOTTOM[row])
            lines.append(f"{floor:2}  {row:12}  {', '.join(below)}".rstrip())
    lines = [line for line in lines if not line[4:].startswith(("pynas ", "cli ", "testing "))]
    return "```\n" + "\n".join(lines) + "\n```\n"


def test_contributing_shows_the_table() -> None:
    text = PAGE.read_text()
    assert BEGIN + picture() + END in text, "run: python tests/test_import_contract.py"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + picture() + END + rest.partition(END)[2])
