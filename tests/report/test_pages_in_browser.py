"""Pages in Chromium: what a click, a phone, the dark and hostile names make of them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pynas import spaces
from pynas.report import draw_cell, write_search_report
from pynas.report._cell import colour_of
from pynas.spaces import Edge
from pynas.store import Run, RunConfig
from pynas.trial import Evaluation, Status, Trial
from tests.steer.browser import chromium, missing

pytestmark = pytest.mark.slow
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&lt;b"
)
SPACE = spaces.get("nasbench201")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if "playwright" in missing() or "Chromium" in missing():
        pytest.skip(missing())
    with chromium(webgl=False) as found:
        yield found


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page and waits until what is in the window is drawn; nothing may complain."""
    contexts, said = [], []

    def open_page(path: Path, width: int = 1000, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [line for line in said if "ERR_FILE_NOT_FOUND" not in line] == []


def write(path: Path, count: int = 40, message: str = "", objective: str = "toy") -> list[Trial]:
    rng = random.Random(0)
    trials = []
    for i in range(count):
        architecture, metrics = SPACE.sample(rng), {"flops": 1e6 * rng.random(), "params": 12345.0}
        scores = {objective: rng.gauss(0, 3)}
        failed = i == 7
        status = Status.FAILED if failed else Status.OK
        evaluation = Evaluation(status, {} if failed else scores, metrics, message if failed else "")
        trials.append(Trial(i, architecture, evaluation))
    run = Run(1, RunConfig("nasbench201", "random", 0, (objective,), {}, {}), {})
    write_search_report(path, run, trials, space=SPACE)
    return trials


def test_points_and_rows_draw_their_architecture(tmp_path: Path, opened: Callable[..., Any]) -> None:
    trials = write(tmp_path / "page.html")
    page = opened(tmp_path / "page.html", permissions=["clipboard-read", "clipboard-write"])
    rows = page.locator("#all tbody tr")
    assert rows.count() == 40
    # A point: the lowest one of the first plot.
    valid = [trial for trial in trials if trial.number != 7]
    place = page.locator(".plot").first
    place.scroll_into_view_if_needed()
    points = place.locator(".scatterlayer .trace").first.locator("path.point")
    assert points.count() == len(valid)
    box = points.nth(3).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 1, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert f"trial {valid[3].number + 1}" in page.locator(".hoverlayer .hovertext").text_content().lower()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    picked = page.locator("#picked")
    label = SPACE.format(valid[3].architecture)
    assert picked.locator("code").inner_text() == label
    page.wait_for_function("document.querySelector('#picked .note').textContent.includes('clipboard')")
    assert page.evaluate("navigator.clipboard.readText()") == label
    assert "12,345" in picked.inner_text()
    page.keyboard.press("Escape")
    assert picked.is_hidden()
    # A row: by number, sorted, found by its text, and by the keyboard.
    page.get_by_role("button", name="toy", exact=True).click()
    scores = [trial.evaluation.scores.get("toy", math.nan) for trial in trials]
    best = max(score for score in scores if not math.isnan(score))
    assert rows.first.locator("td").nth(0).inner_text() == str(scores.index(best) + 1)
    assert rows.last.locator("td").nth(0).inner_text() == "8"  # it failed; without a score it is the last
    page.locator("#find").fill(SPACE.format(trials[20].architecture))
    assert rows.count() == 1
    rows.first.focus()
    page.keyboard.press("Enter")
    assert picked.locator("h2").inner_text() == "Trial 21"
    # It is drawn as draw_cell draws it.
    for_python = draw_cell(SPACE.graph(trials[20].architecture))
    assert shapes(page, for_python) == page.evaluate(DRAWN, "#picked svg")


DRAWN = """(selector) => [...document.querySelectorAll(`${selector} :is(path, rect, circle, text)`)]
  .filter(each => !each.closest("marker"))
  .map(each => [each.tagName, each.textContent, ...["d", "x", "y", "cx", "cy", "width", "stroke"]
    .map(name => (each.getAttribute(name) ?? "").replace(/-?\\d[\\d.]*/g, n => Number(n).toFixed(3))
                                               .replace(/var\\(--(\\w+)[^)]*\\)/, "$1"))])"""


DRAW = """([script, given]) => {
  document.querySelectorAll("#python, #script").forEach(each => each.remove());
  const box = document.createElement("div");
  box.id = "script";
  document.body.append(box);
  box.append(new Function(`${script}; return drawnCell;`)()(given.edges, given.labels, given.colours));
}"""


def shapes(page: Any, svg: str) -> Any:
    """Elements of a drawing, as a browser reads them, in the order of painting."""
    page.evaluate("svg => { const box = document.createElement('div'); box.id = 'python';"
                  " box.innerHTML = svg; document.body.append(box); }", svg)  # fmt: skip
    return page.evaluate(DRAWN, "#python svg")


def test_any_graph_is_drawn_as_in_python(tmp_path: Path, opened: Callable[..., Any]) -> None:
    """Long and short edges, two between the same nodes, names of nodes."""
    write(tmp_path / "page.html", 3)
    page = opened(tmp_path / "page.html")
    script = (Path(draw_cell.__code__.co_filename).parent / "static" / "cell.js").read_text()
    rng = random.Random(1)
    for count in (2, 4, 6):
        pairs = itertools.combinations(range(count), 2)
        edges = [Edge(i, j, rng.choice(["none", "conv_3x3", "x"])) for i, j in pairs]
        edges += [Edge(0, 1, "twice"), Edge(0, count - 1, "pool")]
        labels = [f"n{i}" for i in range(count)] if count == 4 else []
        python = draw_cell(edges, labels)
        given = {
            "edges": [{"source": e.source, "target": e.target, "label": e.label} for e in edges],
            "labels": labels,
            "colours": {edge.label: colour_of(edge.label) for edge in edges},
        }
        page.evaluate(DRAW, [script, given])
        assert page.evaluate(DRAWN, "#script svg") == shapes(page, python)


def test_hostile_names_are_text(tmp_path: Path, opened: Callable[..., Any]) -> None:
    write(tmp_path / "page.html", message=HOSTILE, objective=HOSTILE)
    page = opened(tmp_path / "page.html", height=3000)
    assert page.title().startswith("Search of nasbench201 for </script>")
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#all tbody").inner_text()
    assert page.locator("#all thead").inner_text().count("document.title") == 2


def test_a_phone_in_the_dark(tmp_path: Path, opened: Callable[..., Any]) -> None:
    write(tmp_path / "page.html")
    page = opened(tmp_path / "page.html", 390, 844, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    first = page.locator(".plot").first
    first.scroll_into_view_if_needed()
    page.wait_for_selector(".plot .xtick text")
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = "rgb(31, 41, 55)"
    assert page.evaluate(colour) == "rgb(229, 231, 235)"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{colour} === {light!r}")


def test_plots_are_drawn_when_they_are_near(tmp_path: Path, opened: Callable[..., Any]) -> None:
    """Also many points where a browser has no WebGL, for which they are made."""
    write(tmp_path / "page.html", 1700)
    assert "scattergl" in (tmp_path / "page.html").read_text()
    page = opened(tmp_path / "page.html", height=300)
    drawn = ".plot.js-plotly-plot"
    assert page.locator(drawn).count() < page.locator(".plot").count()
    page.locator(".plot").nth(1).scroll_into_view_if_needed()
    page.wait_for_function(f"document.querySelectorAll('{drawn}').length >= 2")
    assert page.locator(".plot").nth(1).locator("path.point").count() > 1000
    page.locator(".plot").last.scroll_into_view_if_needed()
    page.wait_for_selector(".plot.absent")
    assert "needs WebGL" in page.locator(".plot.absent").inner_text()
    assert page.locator("#all tbody tr").count() == 50


def test_a_page_without_its_library_says_so(tmp_path: Path, opened: Callable[..., Any]) -> None:
    write(tmp_path / "page.html")
    (library,) = tmp_path.glob("plotly-*")
    library.unlink()
    page = opened(tmp_path / "page.html")
    assert f"{library.name} is missing" in page.locator(".plot").first.inner_text()
    assert page.locator("#all tbody tr").count() == 40
