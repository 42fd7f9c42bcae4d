"""Who may import whom, as CONTRIBUTING.md draws it, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pynas"

# A module imports only from its own layer's list of lower layers. Names are the first component below pynas.
BOTTOM = {
    "_correlation",
    "_atomic",
    "_costs",
    "_described",
    "_ensembles",
    "_errors",
    "_evaluation",
    "_files",
    "_identity",
    "_json",
    "_multiobjective",
    "_naming",
    "_npz",
    "_objectives",
    "_plain",
    "_registry",
    "_source",
    "_unpickle",
    "_weights",
    "_zip",
    "architecture",
    "provenance",
    "trial",
}
LAYERS: dict[str, set[str]] = {
    "ops": {"_C"},
    "stats": {"ops", "_C"},
    "nn": {"ops"},
    "spaces": {"nn", "stats", "ops", "_C"},
    "hardware": {"stats", "nn", "ops", "spaces"},
    "embedding": {"spaces"},
    "lissnas": {"spaces"},
    "supernet": {"spaces", "strategies", "nn", "ops", "data"},
    "analysis": {"supernet", "benchmarks", "spaces", "data", "ops"},
    "proxies": {"stats", "hardware", "nn", "ops"},
    "benchmarks": {"spaces"},
    "strategies": {"spaces", "embedding"},
    "store": set(),
    "_run_identity": {"store", "strategies", "spaces", "benchmarks", "hardware"},
    "_recorder": {"_run_identity", "store", "strategies"},
    "_workers": {"_recorder"},
    "data": set(),
    "fronts": set(),
    "ranking": {"fronts"},
    "evaluate": {"proxies", "spaces", "hardware", "benchmarks", "stats", "nn", "ops"},
    "report": {"store", "fronts", "ranking", "analysis", "spaces", "benchmarks"},
    "run": {
        "_recorder",
        "_run_identity",
        "_workers",
        "data",
        "evaluate",
        "report",
        "store",
        "strategies",
        "spaces",
        "benchmarks",
        "hardware",
        "ranking",
    },
}
WITHOUT_TORCH = (
    "strategies",
    "store",
    "report",
    "fronts",
    "ranking",
    "run",
    "benchmarks",
    "architecture",
    "trial",
    "_described",
    "_evaluation",
    "_identity",
    "_naming",
    "_plain",
    "_recorder",
    "_run_identity",
    "_source",
    "_registry",
    "_errors",
    "_workers",
)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def component(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    own = component(path)
    if own not in LAYERS:
        return  # the top (cli, __init__, testing, bench) may import everything
    allowed = LAYERS[own] | BOTTOM | {own}
    below = {name.split(".")[1] for name in imported_modules(path) if name.startswith("pynas.")}
    assert below <= allowed, f"{path.relative_to(PACKAGE)} imports {sorted(below - allowed)}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_search_half_knows_no_torch(path: Path) -> None:
    if component(path) not in WITHOUT_TORCH:
        return
    imports = {name.split(".")[0] for name in imported_modules(path, top_level_only=True)}
    assert "torch" not in imports


@pytest.mark.parametrize("slow", ["torch", "scipy.stats"])
def test_importing_pynas_is_quick(slow: str) -> None:
    code = f"import sys, pynas.cli; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
