"""The page of what layers contribute."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from read_pages import Page

from pynas.report import LayerScore, write_layers_report
from pynas.report.layers import LARGEST

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def figures(path: Path) -> list[Any]:
    """The only trace of each plot."""
    return [figure["data"][0] for figure in Page(path).figures]


def test_bars_in_the_order_of_the_network(tmp_path: Path) -> None:
    scores = {
        "plain": LayerScore(1.5, {"stem": 2.0, HOSTILE: -0.5, "head": math.nan}),
        "jacob_cov": LayerScore(-7.0),
        "zen": LayerScore(math.nan, message=f"it failed {HOSTILE}"),
    }
    page = write_layers_report(tmp_path / "layers.html", scores, network=HOSTILE, facts={HOSTILE: HOSTILE})
    html = page.read_text(encoding="utf-8")
    (bars,) = figures(page)
    assert bars["orientation"] == "h"
    assert bars["x"] == [2.0, -0.5]
    assert bars["y"][0] == "stem"
    assert len(set(bars["marker"]["color"])) == 2
    assert "<img src=x" not in html
    assert "failed" in html
    assert "1 contribution is not finite" in html
    assert re.search(r"(src|href)=[\"']?https?:", html) is None


def test_the_largest_of_many(tmp_path: Path) -> None:
    layers = {f"layer{i}": (-1) ** i * float(i) for i in range(LARGEST + 50)}
    (bars,) = figures(write_layers_report(tmp_path / "layers.html", {"snip": LayerScore(0.0, layers)}))
    assert bars["y"] == list(layers)[50:]


@pytest.mark.slow
def test_score_command(run_pynas: Callable[..., Any], tmp_path: Path) -> None:
    cell = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    page = tmp_path / "layers.html"
    arguments = ["--batch", 8, "--image-size", 8, "--proxies", "snip,params,jacob_cov", "--report", page]
    code, out, err = run_pynas("score", cell, *arguments)
    assert code == 0, err
    assert f"report: {page}" in out
    bars = figures(page)
    assert len(bars) == 2
    assert bars[0]["y"][0] == "stem.0.weight"
