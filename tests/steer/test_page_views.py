"""The views of the page in a real browser: linked highlights, selection by drag, changes and their undo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pynas.steer import Page
from tests.steer.browser import Visitor, missing, place_of, rectangle
from tests.steer.visits import agree, allowed, block, dot, expect, lit, painted

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_blocks_and_template_are_linked_both_ways(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    expect(dot(page, "0:3").first).to_be_visible()
    dot(page, "0:3").locator(".reach").hover()
    expect(block(page, "0:3")).to_have_class(re.compile("pointed"))
    block(page, "0:1").hover()
    expect(dot(page, "0:1")).to_have_class(re.compile("pointed"))
    dot(page, "0:3").locator(".reach").click()
    expect(block(page, "0:3")).to_have_class(re.compile("chosen"))
    panel = page.locator("#block-panel")
    expect(panel).to_contain_text("nor_conv_3x3")
    expect(panel).to_contain_text("Fitness")
    page.get_by_text("As a table").click()
    page.get_by_role("region", name="Table of blocks").get_by_role("button").last.click()
    expect(panel.get_by_role("heading", level=3)).not_to_contain_text("nor_conv_3x3 on 0-1")


def test_forbid_force_allow_undo_and_redo(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    block(page, "0:0").click()
    panel, space = page.locator("#block-panel"), page.locator("#space")
    panel.get_by_role("button", name="Forbid").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("15,625 → 12,500")
    expect(dialog).to_contain_text("Best known architectures")
    dialog.get_by_role("button", name="Leave as it is").click()
    assert allowed(finished)[0] == [0, 1, 2, 3, 4]
    panel.get_by_role("button", name="Forbid").click()
    agree(page)
    expect(block(page, "0:0")).to_have_class(re.compile(r"\bout\b"))
    expect(space).to_contain_text("12,500 of 15,625")
    panel.get_by_role("button", name="Allow again").click()
    expect(space).to_contain_text("15,625 of 15,625")
    block(page, "1:2").click()
    panel.get_by_role("button", name="Force").click()
    agree(page)
    expect(block(page, "1:2")).to_have_class(re.compile("only"))
    expect(space).to_contain_text("3,125 of")
    panel.get_by_role("button", name="Allow all here").click()
    expect(space).to_contain_text("15,625 of")
    controls = page.locator("#controls")
    controls.get_by_role("button", name="Undo").click()
    expect(space).to_contain_text("3,125 of")
    controls.get_by_role("button", name="Redo").click()
    expect(space).to_contain_text("15,625 of")
    page.locator("#actions").get_by_role("button", name="Undo …").click()
    expect(page.get_by_role("dialog")).to_contain_text("15,625 → 3,125")
    page.keyboard.press("Escape")
    expect(page.locator("#actions-list")).to_contain_text("forbid none on")
    assert allowed(finished) == [[0, 1, 2, 3, 4]] * 6


def test_the_template_works_by_keyboard_and_zooms(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    block(page, "0:0").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(block(page, "1:1")).to_be_focused()
    expect(block(page, "1:1")).to_have_class(re.compile("pointed"))
    page.keyboard.press("Enter")
    expect(page.locator("#block-panel")).to_contain_text("skip_connect")
    drawing = page.locator("#template-view svg")
    before = float(drawing.get_attribute("width"))

    def is_wide(times: float) -> None:
        page.wait_for_function(
            """wanted => Math.abs(
                document.querySelector("#template-view svg").getAttribute("width") - wanted) < 1""",
            arg=times * before,
        )

    page.get_by_role("button", name="Zoom in").click()
    is_wide(1.25)
    page.get_by_role("button", name="Zoom out").click()
    is_wide(1)
    block(page, "1:1").focus()
    page.keyboard.press("+")
    is_wide(1.25)
    page.get_by_role("button", name="Fit", exact=True).click()
    is_wide(1)


def test_selections_restrict_fix_and_forbid(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    rectangle(page, 0.02, 0.02, 0.3, 0.3)
    box = page.locator("#selection")
    expect(box).to_contain_text(re.compile(r"\d+ candidates? selected"))
    page.get_by_label("Lasso").check()
    rectangle(page, 0.01, 0.01, 0.12, 0.2)
    page.get_by_label("Select candidates by score").select_option("best 10 %")
    expect(box).to_contain_text("evaluated, mean score")
    for name in ("Union", "Intersection", "Complement"):
        box.get_by_role("button", name=name).click()
        dialog = page.locator("dialog[open], .message.error").last
        expect(dialog).to_be_visible()
        if page.locator("dialog[open]").count():
            page.keyboard.press("Escape")
    assert allowed(finished) == [[0, 1, 2, 3, 4]] * 6, "a preview changes nothing"
    box.get_by_role("button", name="Union").click()
    agree(page)
    expect(page.locator("#actions-list tbody tr").first).to_be_visible()
    expect(page.locator("#actions-list tbody tr").first).to_contain_text("candidates")
    assert allowed(finished)[0] == [3], "the best have the same first block"
    box.get_by_role("button", name="Clear").click()
    expect(box).to_contain_text("Drag on the map")


def test_a_candidate_lights_its_blocks(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    best = finished.state()["search"]["best"]
    decisions = finished.steering.trials()[best]["decisions"]
    wanted = [f"{d}:{c}" for d, c in enumerate(decisions)]
    page.locator("#map-view").scroll_into_view_if_needed()
    page.mouse.move(*place_of(page, best))
    expect(page.locator(".tip")).to_contain_text("trial")
    expect(page.locator("#template-view .block.lit")).to_have_count(len(wanted))
    expect(page.locator("#blocks-view .dot-block.lit")).to_have_count(len(wanted))
    assert sorted(lit(page)) == wanted
    page.mouse.move(0, 0)
    page.get_by_role("button", name="Look at the best").click()
    expect(page.locator("#candidate-panel")).to_contain_text(f"Trial {best}")
    expect(page.locator("#template-view .block.lit")).to_have_count(len(wanted))
    assert sorted(lit(page)) == wanted
    page.locator("#candidate-panel").get_by_role("button", name="Select it").click()
    expect(page.locator("#selection")).to_contain_text("1 candidate selected")
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_contain_text("Drag on the map")


def test_trials_are_read_sorted_and_exported(visitor: Visitor, finished: Page) -> None:
    page = visitor.open(finished.url)
    filters = page.locator("#trials-tools select")
    filters.first.select_option("failed")
    expect(page.locator("#trials-table")).to_contain_text("planted failure")
    expect(page.locator("#trials-table")).to_contain_text("onerror=")
    assert page.locator("#trials-table img").count() == 0
    assert "pynas steer" in page.title()
    filters.first.select_option("all")
    filters.nth(1).select_option("best")
    best = finished.state()["search"]["best"]
    expect(page.locator("#trials-table tbody th").first).to_contain_text(f"★ {best}")
    page.locator("#trials-table tbody th button").first.click()
    expect(page.locator("#candidate-panel")).to_contain_text(f"Trial {best}")
    page.get_by_role("button", name="Export the winner").click()
    with page.expect_download(timeout=60_000) as waited:
        page.get_by_role("dialog").get_by_role("button", name="Save").click()
    document = json.loads(Path(waited.value.path()).read_text())
    assert document["decisions"] == list(finished.steering.trials()[best]["decisions"])


def test_the_map_needs_no_webgl(visitor: Visitor, finished: Page) -> None:
    kind, count = painted(visitor.open(finished.url))
    assert kind == "2d"
    assert count > 5000


def test_the_map_uses_webgl(finished: Page, tmp_path: Path) -> None:
    # Playwright runs once in a thread, so this browser has a process of its own.
    script = tmp_path / "look.py"
    script.write_text(
        "import sys\n"
        "from tests.steer.browser import Visitor, chromium\n"
        "from tests.steer.visits import painted\n"
        "with chromium() as browser:\n"
        "    print(*painted(Visitor(browser).open(sys.argv[1])))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), finished.url]
    told = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, timeout=60)
    assert told.returncode == 0, told.stderr
    kind, count = told.stdout.split()
    assert (kind, int(count) > 5000) == ("webgl", True)
