"""What a browser makes of a page: elements, texts, plots, and the columns of its architectures."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np


class Page(HTMLParser):
    """Elements, attributes and visible text of a page, scripts and data apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.figures: list[dict[str, Any]] = []  # traces and layout of every plot, as plotly gets them
        self.data: dict[str, Any] = {}  # of the architectures
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        self.html = path.read_bytes().decode("utf-8")
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open = tag, dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        self._open = "", {}

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open
        if tag not in ("script", "style"):
            self.text += data
        if tag != "script":
            return
        self.scripts.append(data)
        if attributes.get("class") == "figure":
            self.figures.append(json.loads(data))
        if attributes.get("id") == "architectures":
            self.data = json.loads(data)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Values of the architectures by the name of the column."""
        count = self.data["count"]
        return {
            each["name"]: numbers(each["numbers"]) if "numbers" in each else texts(each["texts"], count)
            for each in self.data["columns"]
        }

    @property
    def edges(self) -> list[list[tuple[int, int, str]]]:
        """Edges of each architecture: from, to, operation."""
        found = []
        for text in texts(self.data["edges"], self.data["count"]):
            ends = list(map(int, text.split()))
            named = [self.data["operations"][k] for k in ends[2::3]]
            found.append(list(zip(ends[::3], ends[1::3], named, strict=True)))
        return found


def array(held: dict[str, str]) -> np.ndarray[Any, Any]:
    """A typed array."""
    return np.frombuffer(base64.b64decode(held["data"]), f"<{held['dtype']}")


def numbers(held: dict[str, str]) -> list[float]:
    return [float(f"{value:.7g}") if held["dtype"] == "f4" else float(value) for value in array(held)]


def texts(held: dict[str, Any], count: int) -> list[str]:
    if "fixed" in held:
        parts = []
        varying = iter(held["varying"])
        for word in held["fixed"]:
            if word is not None:
                parts.append([word] * count)
            else:
                place = next(varying)
                parts.append([place["words"][k] for k in array(place["at"])])
        return ["".join(row) for row in zip(*parts, strict=True)]
    words = [held["words"][k] for k in array(held["at"])]
    if "lengths" not in held:
        return words
    ends = np.cumsum(array(held["lengths"]).astype(int))
    starts = ends - array(held["lengths"])
    return ["".join(words[a:b]) for a, b in zip(starts, ends, strict=True)]


def check_loads_nothing(page: Page, *, inline: bool = False) -> None:
    """It loads the drawing library from beside it, or nothing at all, and no attribute is a script."""
    assert page.html.count("plotly.js v") == inline
    assert not {"link", "iframe", "img"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    (library,) = (value for name, value in page.attributes if name == "data-plotly")
    assert library is not None
    assert library.startswith("plotly-")
    assert "/" not in library
    assert not [name for name, _ in page.attributes if name.startswith("on")]
