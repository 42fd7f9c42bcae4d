"""Every example of README and docs runs when it is pasted alone, and pages say what the code says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent.name != "api"]  # the reference is made of docstrings
PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
FENCE = re.compile(
    r"(?P<slow><!-- slow -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)

# Asked of some examples beside running, in their own namespace: `output` is what they printed, `again()`
# what they print when they are run once more.
CHECKS = {
    ("README.md", "replace_mixed_ops(model)"): """
fused, learned = output.splitlines()
assert fused.startswith("4 mixed operations fused, 0 left"), fused
assert int(learned.split(" %")[0]) > 60  # chance is a tenth
assert float(right) > 0.6
""",
    (
        "docs/searching.md",
        'strategy="epnas"',
    ): 'assert result.best.evaluation.scores["accuracy"] >= 88  # 90 is the best',
    ("docs/searching.md", "lissnas.lissnas("): """
sizes = [iteration.size for iteration in shrunk.iterations]
assert sizes[-1] < sizes[0] < space.size
assert result.best.evaluation.scores["accuracy"] >= 88
""",
    ("docs/searching.md", "Shifting("): """
assert len(shifted.candidates) == 3 * 8
assert shifted.best.accuracy > 0.3  # chance is a tenth
""",
    ("docs/spaces.md", "last_word"): 'assert {score.status for score in scores.values()} == {"ok"}',
    ("docs/supernets.md", "resume=True"): """
assert float(output) > 0.3  # chance is a tenth
assert again() == output, "the second run finds the checkpoints of the first"
assert os.path.isdir("run1")
""",
    ("docs/weight_sharing.md", '"four groups": good'): """
good, poor = found.settings
assert good.kendall.value > poor.kendall.value > 0
assert poor.against_first.high < 0
""",
    ("docs/weight_sharing.md", "write_sharing_report"): """
assert "Bias of operations" in (folder / "page.html").read_text()
assert output.count("\\n") == 1
""",
}

RUNNER = """
import contextlib, io, json, os, runpy, sys, traceback

def run(output):
    with contextlib.redirect_stdout(output):
        return runpy.run_path("block.py", run_name="__main__")

def again():
    output = io.StringIO()
    run(output)
    return output.getvalue()

failed = []
for block in json.load(sys.stdin):
    os.chdir(block["folder"])
    output = io.StringIO()
    try:
        names = run(output)
        names.update(output=output.getvalue(), again=again, os=os)
        exec(block["check"], names)
    except BaseException:
        failed.append(block["name"])
        print(output.getvalue(), block["name"], traceback.format_exc(), sep="\\n", file=sys.stderr)
sys.exit("failed: " + ", ".join(failed) if failed else 0)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    slow: bool

    @property
    def check(self) -> str:
        """What is asked of it beside running."""
        return "\n".join(
            code for (page, part), code in CHECKS.items() if page == self.page and part in self.text
        )


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        name = str(page.relative_to(ROOT))
        yield Block(name, line, found["language"], found["text"], found["slow"] is not None)


EXAMPLES = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def pages_of(slow: bool) -> list[str]:
    return list(dict.fromkeys(block.page for block in EXAMPLES if block.slow == slow))


def prepare(page: str, folder: Path) -> None:
    """Files that a page says how to come by."""
    if page != "docs/tables.md":
        return
    from official_layouts import nats_folder

    from pynas import spaces, tables

    space = spaces.get("nasbench201")
    source = folder / "NATS-tss-v1_0-3ffb9-simple"
    nats_folder(source, [space.format(space.from_index(i)) for i in range(6)], [1, 4], {"12": 12, "200": 200})
    tables.convert(source, folder / "nats-tss.npz")


def run(page: str, slow: bool, folder: Path) -> None:
    """All examples of a page, each in a namespace and a folder of its own, in one process."""
    work = []
    for block in EXAMPLES:
        if block.page == page and block.slow == slow:
            own = folder / str(block.line)
            own.mkdir()
            prepare(page, own)
            (own / "block.py").write_text(block.text, encoding="utf-8")
            work.append({"folder": str(own), "name": f"{page}:{block.line}", "check": block.check})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps(work),
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", pages_of(slow=False))
def test_examples_run_as_pasted(page: str, tmp_path: Path) -> None:
    run(page, False, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_of(slow=True))
def test_slow_examples_run_as_pasted(page: str, tmp_path: Path) -> None:
    run(page, True, tmp_path)


def test_every_check_belongs_to_one_example() -> None:
    for page, part in CHECKS:
        assert sum(block.page == page and part in block.text for block in EXAMPLES) == 1, (page, part)
    first = next(block for block in EXAMPLES if block.page == "README.md")
    assert len(first.text.splitlines()) <= 60


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
