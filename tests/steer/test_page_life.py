"""The page beside a search that runs, ends, is killed and comes back; several pages; whoever looks at it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pynas.steer import Page, steer
from pynas.trial import Evaluation, Status
from tests.steer.browser import Visitor, missing
from tests.steer.steered import CELL, SPACE
from tests.steer.visits import agree, allowed, block, expect, slowly

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_the_search_is_changed_while_it_runs(visitor: Visitor, served: Callable[..., Page]) -> None:
    search = served(slowly, objectives=["s", "t"], budget=400, begin_at_once=False)
    page = visitor.open(search.url)
    form = lambda name: page.locator(f'form[data-form="{name}"]')  # noqa: E731
    form("add").locator("textarea").fill("no architecture")
    expect(form("add").get_by_role("button", name="Evaluate next")).to_be_disabled()
    expect(form("add")).to_contain_text(re.compile("expected|not|architecture"))
    form("add").locator("textarea").fill(CELL)
    expect(form("add")).to_contain_text("Valid.")
    form("add").get_by_role("button", name="Evaluate next").click()
    expect(form("add").locator(".queue")).to_contain_text("skip_connect")
    form("add").get_by_role("button", name="Withdraw").click()
    expect(form("add").locator(".queue li")).to_have_count(0)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Your name").press("Tab")
    page.get_by_role("button", name="Compose one").click()
    for name in ("0:3", "1:1", "2:2"):
        block(page, name).click()
    expect(block(page, "2:2")).to_have_class(re.compile("lit"))
    page.locator("#candidate-panel").get_by_role("button", name="Evaluate next").click()
    expect(form("add").locator(".queue")).to_contain_text("added by Ada")
    page.locator("#controls").get_by_role("button", name="Resume").click()
    expect(page.locator("#status")).to_contain_text("running")
    page.locator("#trials-tools select").first.select_option("analyst")
    expect(page.locator("#trials-table")).to_contain_text("analyst (Ada)")
    page.locator("#trials-tools select").first.select_option("all")
    form("strategy").locator("select").first.select_option("random")
    form("strategy").get_by_role("button", name="Change strategy").click()
    expect(page.locator("#actions-list")).to_contain_text("random")
    form("budget").locator("input").fill("300")
    form("budget").get_by_role("button", name="Set budget").click()
    expect(page.locator("#progress")).to_contain_text("of 300 trials")
    form("constraints").locator('[data-cost="params"]').fill("1")
    form("constraints").get_by_role("button", name="Look and set").click()
    expect(page.locator(".message.error").first).to_contain_text("no architecture would be left")
    form("constraints").locator('[data-cost="params"]').fill("3000")
    form("constraints").get_by_role("button", name="Look and set").click()
    agree(page)
    expect(page.locator("#actions-list")).to_contain_text(re.compile("params"))
    for name, weight in {"s": "2", "t": "0.5"}.items():
        form("weights").locator(f'[data-objective="{name}"]').fill(weight)
    form("weights").get_by_role("button", name="Set weights").click()
    expect(page.locator("#actions-list tbody tr").first).to_contain_text("weight")
    form("weights").get_by_role("button", name="No weights").click()
    state = search.state()["search"]
    assert (state["strategy"], state["budget"], state["constraints"]) == ("random", 300, {"params": 3000})
    controls = page.locator("#controls")
    controls.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_contain_text("paused")
    expect(page.locator("#trials-best")).to_contain_text("Pareto front")
    controls.get_by_role("button", name="Resume").click()
    controls.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Let it go on").click()
    controls.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the search").click()
    expect(page.locator("#status")).to_contain_text("stopped")
    expect(controls.get_by_role("button", name="Resume")).to_be_disabled()


def test_cancel_ends_at_once(visitor: Visitor, served: Callable[..., Page]) -> None:
    search = served(slowly, budget=400)
    page = visitor.open(search.url)
    page.locator("#controls").get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the search").click()
    expect(page.locator("#status")).to_contain_text("cancelled")


def test_two_pages_see_the_same(browser: Any, visitor: Visitor, served: Callable[..., Page]) -> None:
    search = served(slowly, budget=400)
    other = Visitor(browser)  # a window of its own: a tab that is hidden draws nothing
    first, second = other.open(search.url), visitor.open(search.url)
    block(first, "0:0").click()
    first.locator("#block-panel").get_by_role("button", name="Forbid").click()
    agree(first)
    expect(block(second, "0:0")).to_have_class(re.compile(r"\bout\b"))
    expect(second.locator("#actions-list")).to_contain_text("forbid none on")
    other.close()
    assert other.complaints == []
    before = len(search.steering.trials())
    expect(second.locator("#progress")).not_to_contain_text(f"{before} of")
    assert search.state()["search"]["status"] == "running"


def test_a_link_on_another_site_opens_the_page(visitor: Visitor, finished: Page) -> None:
    """As in a hosted notebook: the browser sends no strict cookie along with what a foreign link leads to."""
    link = f'<!doctype html><a href="{finished.url}">open the page</a>'
    visitor.context.route(
        "http://notebook.example/", lambda route: route.fulfill(content_type="text/html", body=link)
    )
    page = visitor.context.new_page()
    page.goto("http://notebook.example/")
    page.get_by_text("open the page").click()
    page.wait_for_selector("#template-view svg .block")
    assert page.url == finished.url.partition("?")[0], "the token has left the address"


def test_an_undo_on_one_page_is_not_that_of_another(visitor: Visitor, finished: Page, browser: Any) -> None:
    page = visitor.open(finished.url)
    finished.act("forbid", blocks=["0:0"])
    undo = page.locator("#controls").get_by_role("button", name="Undo")
    expect(undo).to_be_enabled()
    # Somebody else does something in the moment between the look and the click.
    page.route("**/api/actions", lambda route: (finished.act("forbid", blocks=["1:0"]), route.continue_()))
    undo.click()
    expect(page.locator(".message.error")).to_contain_text("is not the last one any more")
    assert allowed(finished)[:2] == [[1, 2, 3, 4], [1, 2, 3, 4]]
    page.unroute("**/api/actions")


def test_names_from_a_store_are_no_markup_in_charts(browser: Any, served: Callable[..., Page]) -> None:
    def scored(arch: Any) -> Any:
        return Evaluation(Status.OK, {"a<b>&lt;i": float(sum(arch.decisions))})

    visitor = Visitor(browser, charts=True)
    search = served(scored, objectives=["a<b>&lt;i"], budget=5)
    page = visitor.open(search.url)
    page.locator("#trials-charts").scroll_into_view_if_needed()
    page.wait_for_selector("#trials-charts .main-svg", timeout=30_000)
    expect(page.locator("#trials-charts .ytitle").first).to_have_text("a<b>&lt;i")
    visitor.close()
    assert visitor.complaints == []


def test_two_runs_of_a_store_are_compared(
    visitor: Visitor, served: Callable[..., Page], tmp_path: Path
) -> None:
    store = tmp_path / "runs.db"
    served(store=store, strategy="random").wait(20)
    second = served(store=store, seed=4)
    second.wait(20)
    page = visitor.open(second.url)
    expect(page.locator("#runs-view")).to_contain_text(
        re.compile(r"run \d+: best .* after 40 trials, .*; run")
    )
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#runs-view .plot")).to_have_attribute("aria-label", re.compile("run"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_killed_search_is_told_and_caught_up_with(browser: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-the-tests-1234")
    port = free_port()
    common = [
        *(sys.executable, "-m", "pynas.cli", "steer", "--no-browser", "--port", str(port), "--threads", "1"),
        *("--token-file", str(token), "--store", str(tmp_path / "runs.db"), "--points", "50"),
    ]
    begun = [
        *common,
        "--images",
        "digits",
        "--space",
        "nasbench201:channels=2,num_cells=1",
        "--evaluator",
        "params",
        "--budget",
        "12",
    ]

    def start(command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        told: list[str] = []
        for line in process.stdout:
            if "http://" in line:
                return process
            told.append(line)
        process.communicate()
        pytest.fail("".join(told))

    visitor = Visitor(browser)
    visitor.context.set_default_timeout(30_000)
    process = start(begun)
    try:
        page = visitor.open(f"http://127.0.0.1:{port}/?token={token.read_text()}")
        expect(page.locator("#progress")).to_contain_text("12 of 12 trials")
        block(page, "0:0").click()
        page.locator("#block-panel").get_by_role("button", name="Forbid").click()
        agree(page)
        expect(block(page, "0:0")).to_have_class(re.compile(r"\bout\b"))
        process.kill()
        process.communicate()
        expect(page.get_by_role("alert").first).to_contain_text("does not answer")
        process = start([*common, "--resume"])
        expect(page.locator("#banner")).to_be_hidden(timeout=20_000)
        expect(block(page, "0:0")).to_have_class(re.compile(r"\bout\b"))
        expect(page.locator("#progress")).to_contain_text("12 of 12 trials")
    finally:
        process.kill()
        process.communicate()
        visitor.close()
    assert all("ERR_" in each or "Failed to load" in each for each in visitor.complaints)


def test_training_is_started_paused_and_stopped(
    visitor: Visitor, served: Callable[..., Page], one_thread: None
) -> None:
    del served
    with steer(SPACE, epochs=1, budget=2, points=50, begin_at_once=False) as search:
        page = visitor.open(search.url)
        tools, status = page.locator("#training-tools"), page.locator("#training-status")
        button = lambda name: tools.get_by_role("button", name=name, exact=True)  # noqa: E731
        # More than is ever trained: it has to run still when it is paused and stopped.
        page.get_by_label("Epochs").fill("1000")
        button("Train").click()
        expect(status).to_contain_text("running")
        button("Pause training").click()
        expect(status).to_contain_text("paused")
        button("Resume training").click()
        expect(status).to_contain_text("running")
        expect(page.locator("#training-view .plot").first).to_have_attribute(
            "aria-label", re.compile("loss by step")
        )
        button("Stop training").click()
        expect(status).to_contain_text("idle")
        page.close()


def violations(found: list[dict[str, Any]]) -> list[Any]:
    """What is wrong and where, in few words."""
    return [(v["id"], [(n["target"], n["failureSummary"][:200]) for n in v["nodes"][:4]]) for v in found]


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
)
def test_everybody_can_use_it(browser: Any, finished: Page, width: int, scheme: str) -> None:
    visitor = Visitor(browser, width, charts=True, color_scheme=scheme, reduced_motion="reduce")
    page = visitor.open(finished.url)
    block(page, "0:3").click()
    page.get_by_label("Select candidates by score").select_option("best 10 %")
    page.get_by_role("button", name="Look at the best").click()
    page.get_by_text("As a table").click()
    expect(page.locator("#candidate-panel")).to_contain_text("Trial")
    page.locator("#trials-charts").scroll_into_view_if_needed()
    page.wait_for_selector("#trials-charts .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut at the side"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    told = [
        (v["id"], [(n["target"], n.get("failureSummary", "")[:200]) for n in v["nodes"][:4]]) for v in found
    ]
    assert told == []
    block(page, "0:3").click()
    page.locator("#block-panel").get_by_role("button", name="Forbid").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(axe.run(page).response["violations"]) == []
    visitor.close()
    assert visitor.complaints == []
