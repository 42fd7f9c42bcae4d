"""The whole loop of the paper on the page: design, train, search, read, prune, train on, search, export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pynas.steer import Page, replay, steer
from tests.steer.browser import Visitor, missing
from tests.steer.steered import SPACE
from tests.steer.visits import agree, block, expect

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Page]:
    monkeypatch.chdir(tmp_path)
    setup: dict[str, Any] = {"epochs": 1, "limit": 250, "batch": 32, "seed": 1, "strategy": "random"}
    with steer(SPACE, budget=20, store=tmp_path / "runs.db", points=50, begin_at_once=False, **setup) as made:
        yield made


def layers(design: Any) -> list[str]:
    return [str(each) for each in design.locator(".layer-of-design summary").all_inner_texts()]


def test_a_template_is_designed_searched_pruned_and_its_winner_exported(
    browser: Any, page: Page, tmp_path: Path
) -> None:
    visitor = Visitor(browser)
    visitor.context.set_default_timeout(30_000)
    tab = visitor.open(page.url)
    design = tab.locator("#design")
    expect(design).to_be_visible()
    design.locator("[role=status]").filter(has_text="Fits").wait_for()
    before = layers(design)
    design.get_by_role("button", name="Add a layer").click()
    assert len(layers(design)) == len(before) + 1
    design.get_by_role("button", name="Undo").click()
    assert layers(design) == before
    design.get_by_role("button", name="Redo").click()
    last = design.locator(".layer-of-design").last
    number = design.locator(".layer-of-design").count()
    last.get_by_role("button", name=f"Move layer {number} up").click()
    design.get_by_role("button", name=f"Remove layer {number - 1}", exact=True).click()
    assert layers(design) == before
    while (left := design.locator(".layer-of-design").count()) > 2:
        design.get_by_role("button", name=f"Remove layer {left}", exact=True).click()
    first = design.locator(".layer-of-design").first
    first.get_by_role("button", name="Duplicate layer 1").click()
    design.get_by_role("button", name="Remove layer 2", exact=True).click()
    first.get_by_label("Add an alternative to layer 1").select_option("pool")
    first.get_by_label("stride").last.select_option("2")
    expect(design).to_contain_text("to be mended first")
    expect(first.locator(".problems")).not_to_be_empty()
    design.get_by_role("button", name="Undo").click()
    expect(design).to_contain_text("Fits")
    design.get_by_label("Image size in pixels").fill("16")
    design.get_by_label("Image size in pixels").press("Tab")
    expect(design).to_contain_text("Fits")
    design.get_by_label("Name of the file").fill("drawn")
    design.get_by_role("button", name="Save").click()
    expect(tab.locator("#messages")).to_contain_text("template:drawn.json")
    with tab.expect_download() as waited:
        design.get_by_role("button", name="Download").click()
    assert json.loads(Path(waited.value.path()).read_text()) == json.loads(
        (tmp_path / "drawn.json").read_text()
    )
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"layers": [{"alternatives": [null]}], "stem": {}}')
    design.get_by_label("Open a file").set_input_files(wrong)
    expect(tab.locator("#messages")).to_contain_text("wrong.json is no design")
    design.get_by_label("Open a file").set_input_files(tmp_path / "drawn.json")
    expect(design).to_contain_text("Fits")

    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert axe.run(tab).response["violations"] == []

    design.get_by_role("button", name="Search in it").click()
    tab.get_by_role("dialog").get_by_role("button", name="Begin the search").click()
    expect(tab.locator("#space")).to_contain_text("template:")
    tools, status = tab.locator("#training-tools"), tab.locator("#training-status")
    tab.get_by_label("Epochs").fill("1")
    tools.get_by_role("button", name="Train", exact=True).click()
    expect(status).to_contain_text("idle: phase 1", timeout=60_000)
    tab.locator("#controls").get_by_role("button", name="Resume").click()
    expect(tab.locator("#status")).to_contain_text("budget is spent", timeout=60_000)
    worst = min(
        (each for each in page.steering.blocks()["blocks"] if each["n"]), key=lambda each: each["fitness"]
    )["id"]
    block(tab, worst).click()
    tab.locator("#block-panel").get_by_role("button", name="Forbid").click()
    agree(tab)
    expect(block(tab, worst)).to_have_class(re.compile(r"\bout\b"))
    tools.get_by_role("button", name="Train", exact=True).click()
    expect(status).to_contain_text("idle: phase 2", timeout=60_000)
    form = tab.locator('form[data-form="budget"]')
    form.locator("input").fill("26")
    form.get_by_role("button", name="Set budget").click()
    expect(tab.locator("#progress")).to_contain_text("26 of 26 trials", timeout=60_000)
    tab.get_by_role("button", name="Export the winner").click()
    dialog = tab.get_by_role("dialog")
    written = {
        "state_dict": "safetensors",
        "pytorch": "zip",
        "torch.export": "pt2",
        "script": "ts",
        "onnx": "onnx",
    }
    for name, suffix in written.items():
        if dialog.get_by_label("Format").locator(f'option[value="{name}"]').count() == 0:
            assert name == "onnx", "which needs packages of its own"
            continue
        dialog.get_by_label("Format").select_option(name)
        with tab.expect_download(timeout=120_000) as waited:
            dialog.get_by_role("button", name="Save").click()
        assert waited.value.suggested_filename.endswith(suffix)
        assert Path(waited.value.path()).stat().st_size > 1000
        tab.get_by_role("button", name="Export the winner").click()
    tab.keyboard.press("Escape")
    assert axe.run(tab).response["violations"] == []
    visitor.close()
    assert visitor.complaints == []
    page.close()
    assert replay(str(tmp_path / "runs.db")).is_same
