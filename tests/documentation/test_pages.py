"""Pages say what the code says: commands, links, names, words, and the site made of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import FENCE, PAGES, ROOT, Block, blocks
from typer.main import get_command

PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]


# ---- commands ------------------------------------------------------------------------------------------


def wrong(words: list[str]) -> str | None:
    """What does not exist in a command."""
    makefile = (ROOT / "Makefile").read_text()
    match words:
        case ["pynas", *rest]:
            return wrong_pynas(rest)
        case ["make", *targets]:
            named = [target for target in targets if "=" not in target]
            return next((t for t in named if not re.search(rf"^{t}:", makefile, re.MULTILINE)), None)
        case [python, "-m", "pynas.cli", *rest] if python.startswith("python"):
            return wrong_pynas(rest)
        case [python, "-m", module, *_] if python.startswith("python"):
            return None if find_spec(module) else module
        case [python, script, *_] if python.startswith("python"):
            return None if (ROOT / script).is_file() else script
        case ["torchrun", "--nproc-per-node", _, "-m", "pynas.cli", *rest]:
            return wrong_pynas(rest)
        case ["pip", "install", *_]:
            return None
    return " ".join(words)


def wrong_pynas(words: list[str]) -> str | None:
    from pynas.cli import app

    command: Any = get_command(app)
    while words and getattr(command, "commands", None):
        if words[0] not in command.commands:
            return words[0]
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return next((w for w in words if w.startswith("--") and w.partition("=")[0] not in known), None)


def commands(block: Block) -> Iterator[list[str]]:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


@pytest.mark.slow
def test_commands_exist() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "console":
                found = [(words, wrong(words)) for words in commands(block)]
                assert [pair for pair in found if pair[1] is not None] == [], block.page
            else:
                assert not re.search(r"^(pynas|make|pip|torchrun) ", block.text, re.MULTILINE), (
                    "mark it console"
                )
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert not re.search(r"^    (pynas|make) ", text, re.MULTILINE), f"{page}: mark it console"
        for inline in re.findall(r"`((?:pynas|make|torchrun|python -m)\s[a-z][^`]*)`", text):
            words = shlex.split(inline.replace("'", '"'))
            while not re.search(r"\w", words[-1]):  # an ellipsis
                words.pop()
            assert wrong(words) is None, (page, inline)


def test_readme_names_every_command() -> None:
    from pynas.cli import app

    named = {command.name for command in app.registered_commands} | {g.name for g in app.registered_groups}
    assert set(re.findall(r"`pynas\s([a-z]+)", (ROOT / "README.md").read_text())) == named


# ---- what pages say ------------------------------------------------------------------------------------


def test_links_of_every_page_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page.name, page.parent / target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text()))
    ]
    assert len(links) > 20
    assert [(page, str(target)) for page, target in links if not target.exists()] == []


def test_it_names_every_strategy() -> None:
    from pynas import strategies

    table = (ROOT / "docs" / "searching.md").read_text().split("## Strategies")[1].split("##")[0]
    assert set(re.findall(r"^\| `([a-z0-9_]+)`", table, re.MULTILINE)) == set(strategies.names())


def test_the_page_of_intercepted_calls_names_every_rule() -> None:
    from pynas.stats._rules import RULES

    page = (ROOT / "docs" / "engine" / "intercepted_calls.md").read_text()
    table = page.split("## Which calls are intercepted")[1].split("\n## ")[0]
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", table)}
    missing = {function.__name__ for function in RULES} - named
    assert missing == set()


def test_the_contract_of_mixed_op_is_that_of_the_code() -> None:
    import pynas.ops
    from pynas.ops.candidates import FAMILIES

    page = (ROOT / "docs" / "design" / "mixed_op.md").read_text()
    said = " ".join(page.split())
    for name in ("mixed_op", "mixed_op_backward", "track_statistics"):
        schema = str(getattr(torch.ops.pynas, name).default._schema).partition(" -> ")[0]
        assert schema in said, schema
    assert pynas.ops.mixed_op.__doc__
    for family in ("darts", "nasbench201"):
        table = page.split(f"| `{family}` | formula")[1].split("\n\n")[0]
        listed = [n for row in table.splitlines() for n in re.findall(r"`(\w+_\w+|none)`", row.split("|")[1])]
        assert listed == [*dict.fromkeys(listed)]
        assert set(listed) == set(FAMILIES[family])


def test_the_reference_has_a_page_for_each_public_package() -> None:
    folder = ROOT / "pynas"
    public = {path.parent.name for path in folder.glob("[a-z]*/__init__.py")} | {
        "architecture",
        "trial",
        "pynas",
    }
    pages = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
    assert pages == public - {"cli", "benchmarks"}  # commands have --help; the other is an old name of tables
    for page in pages:
        text = (ROOT / "docs" / "api" / f"{page}.md").read_text()
        assert f"\n::: {'pynas' if page == 'pynas' else f'pynas.{page}'}\n" in text


OLD_WORDS = re.compile(
    r"\bcontenders?\b|\bthe usual code\b|\btrained alone\b|\btrue accurac|\bto the same bits\b|\bdearer\b|"
    r"\bhouse\b|\bthe floor\b|\b1 (epochs|samples|steps|seeds|channels|images|trials)\b",
    re.IGNORECASE,
)


def test_words_are_those_of_the_field() -> None:
    found = {page.name: OLD_WORDS.findall(page.read_text(encoding="utf-8")) for page in PROSE}
    assert not any(found.values()), found


# ---- the site ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    html = sorted(tmp_path.rglob("*.html"))
    assert len(html) > 40
    tags = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*>")
    loading = [tag for path in html for tag in tags.findall(path.read_text(encoding="utf-8"))]
    assert [tag for tag in loading if re.search(r'(?:src|href)="(?:https?:)?//', tag)] == []
    reference = (tmp_path / "api" / "ops.html").read_text(encoding="utf-8")
    assert 'id="pynas.ops.mixed_op.mixed_op"' in reference
