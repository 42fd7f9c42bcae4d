"""Writes docs/licences.md from what installed packages say of themselves: python docs/make_licences.py."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
MARK = "<!-- From here on written by docs/make_licences.py. -->\n"
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|Mozilla|EPL|CDDL|EUPL)")
MIT = "Permission is hereby granted, free of charge"  # for those that put its text where its name belongs


def sections() -> str:
    """A table of all packages, with what brings each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"core": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for name, requirements in wanted.items():
        for package in closure(requirements):
            found.setdefault(package, []).append(name)
    rows = []
    for package in sorted(found):
        distribution = metadata.distribution(package)
        text = licence(distribution)
        shown = f"**{text}**" if COPYLEFT.search(text) else text
        brings = "core" if "core" in found[package] else ", ".join(f"`{name}`" for name in found[package])
        version = distribution.version.partition("+")[0]
        rows.append(f"| {distribution.metadata['Name']} | {version} | {shown} | {brings} |")
    return "\n".join(["| package | version tested | licence | comes with |", "|---|---|---|---|", *rows, ""])


def closure(requirements: list[str]) -> set[str]:
    """Normalised names of all distributions that these requirements install."""
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate(
            {**default_environment(), "extra": extra}
        ):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for inner in ("", *requirement.extras):
            if (name, inner) not in seen:
                seen.add((name, inner))
                waiting += [(Requirement(text), inner) for text in metadata.requires(name) or ()]
    return {name for name, _ in seen}


def licence(distribution: metadata.Distribution) -> str:
    """What it is licensed under, in few words."""
    facts = distribution.metadata
    classifiers = [
        c.rpartition(" :: ")[2] for c in facts.get_all("Classifier") or () if c.startswith("License :: ")
    ]
    text = (facts.get("License") or "").strip().removeprefix("UNKNOWN")
    short = text if text and len(text) < 60 and "\n" not in text and "Copyright" not in text else ""
    known = facts.get("License-Expression") or short or ", ".join(classifiers)
    return known or ("MIT" if MIT in text else "not stated")


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(MARK) + len(MARK)] + "\n" + sections())
