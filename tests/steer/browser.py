"""A page in a real browser: started, opened, and listened to for anything that the page complains about."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("PYNAS_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"


def missing() -> str:
    """Why no browser can be started here; empty if one can."""
    for name, needed in {"playwright": "playwright", "starlette": "steer", "uvicorn": "steer"}.items():
        if importlib.util.find_spec(name) is None:
            return f"needs {needed}: pip install 'pynas-torch[dev]'"
    if not Path(CHROMIUM).is_file():
        return "needs a Chromium, such as Debian's package; PYNAS_CHROMIUM says where"
    return ""


@contextmanager
def chromium(*, webgl: bool = True) -> Iterator[Any]:
    """The installed Chromium, without a window; without WebGL it is faster on a processor alone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in containers, Chromium's sandbox does not start; only pages of ours are opened.
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        flags += ["--disable-dev-shm-usage", *(() if webgl else ("--disable-3d-apis",))]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody who opens pages, and what those pages complained about.

    Args:
        browser: The browser.
        width: Width of the window in pixels.
        height: Its height.
        charts: Whether plotly draws; it is large, and takes most of the time of a test that does not look.
        options: Of the context, such as ``color_scheme``.
    """

    def __init__(
        self, browser: Any, width: int = 1280, height: int = 900, *, charts: bool = False, **options: Any
    ) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(30_000)
        if not charts:
            self.context.route(
                "**/vendor/plotly.min.js",
                lambda route: route.fulfill(
                    content_type="text/javascript", body="window.Plotly = {react() {}};"
                ),
            )
        self.complaints: list[str] = []

    def open(self, url: str) -> Any:
        """A new tab with the page, once it shows the search."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        page.on("console", self._heard)
        page.goto(url)
        page.wait_for_selector("#template-view svg .block")
        page.wait_for_selector("#map-legend span")
        return page

    def _heard(self, message: Any) -> None:
        # A slow graphics driver and a refusal are no faults of the page.
        usual = any(words in message.text for words in ("GL Driver Message", "status of 409"))
        if message.type in ("error", "warning") and not usual:
            self.complaints.append(message.text)

    def close(self) -> None:
        self.context.close()


def rectangle(page: Any, left: float, top: float, right: float, bottom: float) -> None:
    """Drag over the map; numbers are shares of its width and height."""
    page.locator("#map-view").scroll_into_view_if_needed()
    box = page.locator("#map-view").bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    page.mouse.move(*at(left, top))
    page.mouse.down()
    page.mouse.move(*at(right, top), steps=3)
    page.mouse.move(*at(right, bottom), steps=3)
    page.mouse.up()


def place_of(page: Any, trial: int) -> tuple[float, float]:
    """Where the candidate of a trial lies, in pixels of the window."""
    found = page.evaluate(
        """async (number) => {
            const map = await (await fetch("api/candidates")).json();
            const span = (v) => [Math.min(...v), Math.max(...v)];
            const [[a, b], [c, d]] = [span(map.x), span(map.y)];
            const box = document.querySelector("#map-view").getBoundingClientRect();
            const id = map.trial.indexOf(number);
            const share = (v, low, high) => (v - low) / ((high - low) || 1);
            const width = document.querySelector("#map-view").clientWidth - 28;
            const height = document.querySelector("#map-view").clientHeight - 28;
            return [box.x + 15 + share(map.x[id], a, b) * width,
                    box.y + 15 + (1 - share(map.y[id], c, d)) * height];
        }""",
        trial,
    )
    return float(found[0]), float(found[1])
