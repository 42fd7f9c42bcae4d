"""Every example of README and docs runs when it is pasted alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, Block, blocks

from tests.preloaded import Preloaded, preloaded

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
for block in json.load(open("work.json")):
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


EXAMPLES = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def check_of(block: Block) -> str:
    """What is asked of an example beside running."""
    return "\n".join(
        code for (page, part), code in CHECKS.items() if page == block.page and part in block.text
    )


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


@pytest.fixture(scope="module")
def python() -> Iterator[Preloaded]:
    with preloaded() as process:
        yield process


def run(page: str, slow: bool, folder: Path, python: Preloaded) -> None:
    """All examples of a page, each in a namespace and a folder of its own, in one process."""
    work = []
    for block in EXAMPLES:
        if block.page == page and block.slow == slow:
            own = folder / str(block.line)
            own.mkdir()
            prepare(page, own)
            (own / "block.py").write_text(block.text, encoding="utf-8")
            work.append({"folder": str(own), "name": f"{page}:{block.line}", "check": check_of(block)})
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    (folder / "runner.py").write_text(RUNNER, encoding="utf-8")
    result = python.run(folder / "runner.py", folder, {"XDG_CACHE_HOME": str(folder / "cache")}, seconds=900)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_of(slow=False))
def test_examples_run_as_pasted(page: str, tmp_path: Path, python: Preloaded) -> None:
    run(page, False, tmp_path, python)


@pytest.mark.long
@pytest.mark.parametrize("page", pages_of(slow=True))
def test_slow_examples_run_as_pasted(page: str, tmp_path: Path, python: Preloaded) -> None:
    run(page, True, tmp_path, python)


def test_every_check_belongs_to_one_example() -> None:
    for page, part in CHECKS:
        assert sum(block.page == page and part in block.text for block in EXAMPLES) == 1, (page, part)
    first = next(block for block in EXAMPLES if block.page == "README.md")
    assert len(first.text.splitlines()) <= 60
