"""docs/licences.md says what the installed packages say, and the versions that continuous integration has."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "licences.md").read_text()


def pins(file: str) -> dict[str, str]:
    found = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[a-z,]*\])?==([^\s;\\]+)", (ROOT / file).read_text(), re.MULTILINE
    )
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.fixture(scope="module")
def make_licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_licences", ROOT / "docs" / "make_licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows() -> dict[str, list[str]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line[:2] == "| "
    ]
    return {re.sub(r"[-_.]+", "-", row[0]).lower(): row[1:] for row in cells[1:]}


@pytest.mark.slow
def test_every_package_of_every_extra_is_listed(make_licences: ModuleType) -> None:
    try:
        written = make_licences.sections()
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"needs all extras installed; there is no {error}")
    listed = {line.split("|")[1].strip() for line in written.splitlines()[2:] if line}
    missing = listed - {line.split("|")[1].strip() for line in PAGE.splitlines() if line[:2] == "| "}
    assert not missing, "run python docs/make_licences.py"


def test_nothing_with_copyleft_is_needed_to_run(make_licences: ModuleType) -> None:
    bold = {name: row for name, row in rows().items() if row[1].startswith("**")}
    assert {"psycopg", "moocore", "hypothesis"} <= bold.keys(), "the pattern still finds copyleft"
    assert all(row[2] != "core" for row in bold.values())
    prose = PAGE.split(make_licences.MARK)[0]
    assert all(name.removesuffix("-binary") in prose for name in bold), "each is named with what brings it"


def test_versions_are_those_of_the_constraints() -> None:
    pinned, listed = pins("constraints.txt"), rows()
    assert {name: listed[name][0] for name in pinned if name in listed} == {
        name: version for name, version in pinned.items() if name in listed
    }


def test_hashes_are_of_the_versions_that_are_pinned() -> None:
    pinned, hashed = pins("constraints.txt"), pins("constraints-hashed.txt")
    many = {"torch", "torchvision"}
    assert not many & hashed.keys(), "one version of them is many files: they are pinned by version alone"
    # What comes with these extras alone is not installed by hashes: see docs/make_lock.py.
    unhashed = {"`zoo`", "`peers`", "`onnx`"}
    alone = {name for name, row in rows().items() if set(row[2].split(", ")) <= unhashed}
    assert not alone & hashed.keys()
    assert {name: hashed.get(name) for name in pinned.keys() - many - alone} == {
        name: version for name, version in pinned.items() if name not in many | alone
    }
    text = (ROOT / "constraints-hashed.txt").read_text()
    requirements = re.split(r"\n(?=[a-z])", text.partition("\n\n")[2])
    assert all("--hash=sha256:" in requirement for requirement in requirements)
