"""A page with the contribution of each layer to the scores of one network."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go

from pynas._plural import counted
from pynas.report import document

ROW = 17  # pixels of a layer's bar
LARGEST = 400  # bars in a plot; more cannot be told apart


@dataclass(frozen=True)
class LayerScore:
    """The score of one proxy for a network.

    Attributes:
        value: The score.
        layers: Contributions by layer, in the order of the network; empty if the score is no sum over layers.
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
    inline: bool = False,
) -> Path:
    """Write one page that shows, for each proxy, the contribution of each layer as a bar.

    Args:
        path: HTML file to write.
        scores: Scores by the name of the proxy.
        title: Heading of the page.
        network: Name of what was scored.
        facts: Further facts about how the numbers were obtained, by name.
        inline: Put plotly.js, five megabytes, into the page, and not beside it.

    Returns:
        ``path``.
    """
    return document.write_page(path, title, network, _body(scores, facts or {}), inline=inline)


def _body(scores: Mapping[str, LayerScore], facts: Mapping[str, str]) -> Iterator[str]:
    rows = [[name, _number(s.value), f"{len(s.layers):,}" if s.layers else "–"] for name, s in scores.items()]
    table = document.table(["proxy", "score", "layers"], rows, text_columns=["proxy"])
    yield document.grid([document.card("Scores", table, wide=True)])
    for name, found in scores.items():
        if found.message:
            yield document.grid([document.card(name, document.note(found.message), wide=True)])
        elif found.layers:
            yield document.grid(
                [document.card(f"{name}: {_number(found.value)}", _bars(found.layers), wide=True)]
            )
    if facts:
        yield document.grid([document.card("Where the numbers come from", document.facts(facts), wide=True)])


def _bars(layers: Mapping[str, float]) -> str:
    finite = {name: value for name, value in layers.items() if math.isfinite(value)}
    shown = list(finite.items())
    remark = ""
    if len(shown) > LARGEST:
        order = sorted(range(len(shown)), key=lambda i: abs(shown[i][1]), reverse=True)
        shown = [shown[i] for i in sorted(order[:LARGEST])]
        remark = f"The {LARGEST} largest contributions of {counted(len(finite), 'layer')}. "
    if len(finite) < len(layers):
        count = len(layers) - len(finite)
        remark += f"{counted(count, 'contribution')} {'is' if count == 1 else 'are'} not finite."
    names = [document.escaped(name) for name, _ in shown]
    values = [value for _, value in shown]
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=names,
        orientation="h",
        marker={"color": [document.BLUE if value >= 0 else document.AMBER for value in values]},
        hovertemplate="<b>%{y}</b><br>%{x:.6g}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 11}, type="category")
    figure.update_xaxes(title_text="contribution")
    figure.update_layout(bargap=0.25, showlegend=False)
    return document.plot(figure, height=110 + ROW * len(shown)) + document.note(remark)


def _number(value: float) -> str:
    return f"{value:,.6g}" if math.isfinite(value) else "failed"
