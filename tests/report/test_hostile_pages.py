"""Names that a browser, or plotly, which reads HTML of its own, would obey."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from read_pages import Page

from pynas.analysis import Protocol, analyze_sharing
from pynas.architecture import Architecture
from pynas.cli import embed
from pynas.ranking.rank import rank_scores
from pynas.report import (
    LayerScore,
    write_layers_report,
    write_ranking_report,
    write_search_report,
    write_sharing_report,
)
from pynas.spaces import Edge
from pynas.store import Run, RunConfig
from pynas.testing.strategies import ToySpace
from pynas.trial import Evaluation, Status, Trial

LINK = "<a href='javascript:alert(1)'>x</a><b>y</b><br>%{x}$z$&lt;"
CONTROLS = "\x00\x1b\x85\u202e\u2066\udcff"
HOSTILE = f"</script><script>alert(1)</script>{LINK}{CONTROLS}"
SPELLED = r"\x00\x1b\x85\u202e\u2066\udcff"


class HostileSpace(ToySpace):
    def format(self, arch: Architecture) -> str:
        return HOSTILE

    def graph(self, arch: Architecture) -> tuple[Edge, ...]:
        return (Edge(0, 1, HOSTILE), Edge(1, 2, HOSTILE))


class HostileTable:
    metric = unit = dataset = name = HOSTILE
    higher_is_better = True

    def accuracy(self, architecture: Architecture) -> float:
        return float(sum(architecture.decisions))


def write_search(path: Path) -> object:
    config = RunConfig(
        HOSTILE, HOSTILE, 0, (HOSTILE, f"-{HOSTILE}"), {HOSTILE: 3.0}, {"table": {"dataset": HOSTILE}}
    )
    run = Run(1, config, {HOSTILE: {HOSTILE: [HOSTILE]}, "started": HOSTILE})
    scores = {HOSTILE: 1.0, f"-{HOSTILE}": -1.0}
    metrics = {HOSTILE: 1.0, "flops": 1e6, "accuracy": 90.0, "params": 1e5}
    trials = [
        Trial(
            i,
            Architecture(HOSTILE, (i,)),
            Evaluation(Status.OK, {k: i * v for k, v in scores.items()}, metrics),
        )
        for i in range(5)
    ]
    return write_search_report(path, run, trials, space=HostileSpace())


def write_ranking(path: Path) -> object:
    costs = {HOSTILE: [1.0, 2.0, 3.0, 4.0]}
    scores = {HOSTILE: [1.0, 2.0, 3.0, 5.0], "params": [2.0, 1.0, 3.0, 4.0]}
    ranking = rank_scores(
        scores, [1.0, 2.0, 3.0, 4.0], labels=[HOSTILE] * 4, accuracy_label=HOSTILE, costs=costs,
        bounds={HOSTILE: 3.5}, resamples=5,
    )  # fmt: skip
    return write_ranking_report(path, ranking, title=HOSTILE, facts={HOSTILE: HOSTILE})


def write_layers(path: Path) -> object:
    scores = {
        HOSTILE: LayerScore(1.0, {f"{HOSTILE}{i}": float(i) for i in range(3)}),
        f"{HOSTILE}2": LayerScore(float("nan"), {}, HOSTILE),
    }
    return write_layers_report(path, scores, title=HOSTILE, network=HOSTILE, facts={HOSTILE: HOSTILE})


def write_sharing(path: Path) -> object:
    rng = np.random.default_rng(0)
    analysis = analyze_sharing(
        {HOSTILE: rng.random((2, 2, 12))},
        list(rng.random(12)),
        operations={HOSTILE: rng.integers(0, 3, 12).tolist()},
        costs={HOSTILE: list(rng.random(12))},
        labels=[HOSTILE] * 12,
        protocol=Protocol(resamples=10, top=0.5),
    )
    return write_sharing_report(path, analysis, title=HOSTILE, facts={HOSTILE: HOSTILE})


def write_embedding(path: Path) -> None:
    class Made:
        space = HostileSpace()

        def embed(self, architectures: list[Architecture]) -> torch.Tensor:
            return torch.randn(len(architectures), 4, generator=torch.Generator().manual_seed(0))

    architectures = [Architecture("toy", (i % 3, i)) for i in range(10)]
    table: Any = HostileTable()
    made: Any = Made()
    quality = [(HOSTILE, 1.0, None)]
    embed._write_report(path, made, architectures, table, subtitle=HOSTILE, quality=quality)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in ("hovertemplate", "bdata"):  # the page's own
                yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_search, write_ranking, write_layers, write_sharing, write_embedding])
def test_names_are_text_in_pages_and_in_plots(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "page.html"
    write(path)
    page = Page(path)
    body = page.html
    assert "<script>alert" not in body
    assert "<a " not in body
    assert SPELLED in body
    for character in CONTROLS:
        assert character not in body
    assert page.figures
    shown = [text for plot in page.figures for text in texts(plot)]
    hostile = [text for text in shown if "alert" in text]
    assert hostile
    for text in shown:
        assert not re.search("<(?!br>)", text.replace("<br>(millions)", "")), text
        assert not set(CONTROLS) & set(text)
    for text in hostile:
        assert "&lt;a href=&#x27;javascript:alert(1)&#x27;&gt;" in text
