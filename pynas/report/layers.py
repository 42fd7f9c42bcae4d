"""What each layer contributes to the scores of one network, as a page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go

from pynas.report import _page

ROW = 17  # pixels of a layer's bar
LARGEST = 400  # bars in a plot; more cannot be told apart


@dataclass(frozen=True)
class LayerScore:
    """One proxy's verdict on a network.

    Attributes:
        value: The score.
        layers: Contributions by layer, in the order of the network; empty where there is no such sum.
        message: Why there is no score.
    """

    value: float
    layers: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


def write_layers_report(
    path: str | os.PathLike[str],
    scores: Mapping[str, LayerScore],
    *,
    title: str = "Scores by layer",
    network: str = "",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one page with a bar of each layer's contribution for each proxy.

    Args:
        path: Where to.
        scores: By name of the proxy.
        title: Heading.
        network: What was scored.
        facts: What else to say about where the numbers come from, by name.

    Returns:
        ``path``.
    """
    return _page.write_page(path, title, network, _body(scores, facts or {}))


def _body(scores: Mapping[str, LayerScore], facts: Mapping[str, str]) -> Iterator[str]:
    rows = [[name, _number(s.value), f"{len(s.layers):,}" if s.layers else "–"] for name, s in scores.items()]
    table = _page.table(["proxy", "score", "layers"], rows, text_columns=["proxy"])
    yield _page.grid([_page.card("Scores", table, wide=True)])
    for name, found in scores.items():
        if found.message:
            yield _page.grid([_page.card(name, _page.note(found.message), wide=True)])
        elif found.layers:
            yield _page.grid([_page.card(f"{name}: {_number(found.value)}", _bars(found.layers), wide=True)])
    if facts:
        yield _page.grid([_page.card("Where the numbers come from", _page.facts(facts), wide=True)])


def _bars(layers: Mapping[str, float]) -> str:
    finite = {name: value for name, value in layers.items() if math.isfinite(value)}
    shown = list(finite.items())
    remark = ""
    if len(shown) > LARGEST:
        order = sorted(range(len(shown)), key=lambda i: abs(shown[i][1]), reverse=True)
        shown = [shown[i] for i in sorted(order[:LARGEST])]
        remark = f"The {LARGEST} layers of the largest contributions of {len(finite):,}. "
    if len(finite) < len(layers):
        remark += f"{len(layers) - len(finite):,} contributions are not finite."
    names = [_page.escaped(name) for name, _ in shown]
    values = [value for _, value in shown]
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=names,
        orientation="h",
        marker={"color": [_page.BLUE if value >= 0 else _page.AMBER for value in values]},
        hovertemplate="<b>%{y}</b><br>%{x:.6g}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 11}, type="category")
    figure.update_xaxes(title_text="contribution")
    figure.update_layout(bargap=0.25, showlegend=False)
    return _page.plot(figure, height=110 + ROW * len(shown)) + _page.note(remark)


def _number(value: float) -> str:
    return f"{value:,.6g}" if math.isfinite(value) else "no score"
