"""The figures of the reports. ``rows`` are the points' rows among the page's architectures; text is escaped.

What the pointer shows at a point of a row, the script of the page takes from the page's data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from pynas._plural import counted
from pynas.report.document import AMBER, BLUE, GREEN, GREY, VIOLET, escaped

Floats = NDArray[np.float64]

FLOPS_LABEL = "FLOPs of one image (millions of multiply-adds)"

_HOVER = "<b>%{y:.5~g}</b><br>%{text}<extra></extra>"
_POINT = {"size": 5, "color": GREY, "opacity": 0.7}
_MOST_SVG = 1500  # points that a browser draws at ease as elements; more are drawn by the graphics card
_CROWD = 5000  # points that hide each other unless they are small


def _points(
    figure: go.Figure, x: ArrayLike, y: ArrayLike, rows: Sequence[int], mode: str = "markers", **style: Any
) -> None:
    """Add points that know their rows; they lie on a screen, so single precision is enough."""
    kind = figure.add_scattergl if len(rows) > _MOST_SVG else figure.add_scatter
    if len(rows) > _CROWD:
        style["marker"] = style["marker"] | {"size": 3.5, "opacity": 0.5}
    kind(
        x=_narrow(x),
        y=_narrow(y),
        mode=mode,
        customdata=np.asarray(rows, dtype=np.int32),
        meta="rows",
        hovertemplate=_HOVER,
        **style,
    )


def _narrow(values: ArrayLike) -> NDArray[Any]:
    """In single precision, unless a value is too large for it or two that differ would be one."""
    wide = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    spread = np.ptp(wide[np.isfinite(wide)]) if np.isfinite(wide).any() else 0.0
    exact = np.allclose(narrow, wide, rtol=0, atol=1e-4 * spread, equal_nan=True)
    return narrow if exact else wide


def progress(
    numbers: Sequence[int], scores: Floats, total: int, score_label: str, rows: Sequence[int]
) -> go.Figure:
    """Score of every trial, and the best so far as a step line to trial ``total``."""
    best = np.maximum.accumulate(scores)
    steps = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    figure = go.Figure()
    _points(figure, numbers, scores, rows, name="each trial", marker=_POINT)
    figure.add_scatter(
        x=[*np.asarray(numbers)[steps].tolist(), total],
        y=[*best[steps].tolist(), float(best[-1])],
        mode="lines",
        name="best so far",
        line={"shape": "hv", "color": BLUE, "width": 2.5},
        hovertemplate="best so far <b>%{y:.5~g}</b><extra></extra>",
    )
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text=escaped(score_label), **view(scores))
    return figure


def against_accuracy(
    scores: Floats,
    accuracy: Floats,
    score_label: str,
    accuracy_label: str,
    rows: Sequence[int],
    *,
    mega_flops: Floats | None = None,
    star: int | None = None,
) -> go.Figure:
    """Accuracy over score, coloured by multiply-adds if given, point ``star`` marked as the best trial."""
    marker: dict[str, Any] = {"size": 6, "opacity": 0.75, "color": BLUE}
    if mega_flops is not None:
        title = {"text": "FLOPs<br>(millions)", "font": {"size": 12}}
        marker |= {
            "color": _narrow(mega_flops),
            "colorscale": "Viridis",
            "colorbar": {"title": title, "thickness": 12},
        }
    figure = go.Figure()
    _points(figure, scores, accuracy, rows, name="architectures", marker=marker)
    _add_star(figure, scores, accuracy, rows, star)
    figure.update_layout(showlegend=star is not None)
    figure.update_xaxes(title_text=escaped(score_label), **view(scores))
    figure.update_yaxes(title_text=escaped(accuracy_label), **view(accuracy))
    return figure


def pareto(
    costs: Floats,
    scores: Floats,
    front: Sequence[int],
    score_label: str,
    rows: Sequence[int],
    *,
    star: int | None = None,
    bound: float | None = None,
    cost_label: str = FLOPS_LABEL,
) -> go.Figure:
    """Score over cost with the points of ``front`` joined; ``bound``, in the cost's unit, is a line."""
    order = sorted(front, key=lambda i: (costs[i], scores[i]))
    figure = go.Figure()
    _points(figure, costs, scores, rows, name="trials", marker=_POINT)
    figure.add_scatter(
        x=costs[order],
        y=scores[order],
        mode="lines+markers",
        name="Pareto front",
        customdata=np.asarray(rows, dtype=np.int32)[order],
        meta="rows",
        hovertemplate=_HOVER,
        line={"shape": "hv", "color": GREEN, "width": 2},
        marker={"size": 8, "color": GREEN, "line": {"color": "white", "width": 1}},
    )
    _add_star(figure, costs, scores, rows, star)
    if bound is not None:
        figure.add_vline(
            x=bound,
            line={"color": GREY, "dash": "dash"},
            annotation={"text": "constraint", "xanchor": "right"},
        )
    figure.update_xaxes(title_text=escaped(cost_label))
    figure.update_yaxes(title_text=escaped(score_label), **view(scores))
    return figure


def fronts(
    costs: Floats,
    accuracy: Floats,
    truth: Sequence[int],
    chosen: Sequence[int],
    cost_label: str,
    accuracy_label: str,
    score_label: str,
    rows: Sequence[int],
    *,
    bound: float | None = None,
) -> go.Figure:
    """Accuracy over cost: the true Pareto front, and what is on the front of a score and the cost."""
    figure = go.Figure()
    _points(figure, costs, accuracy, rows, name="architectures", marker=_POINT)
    for members, name, colour, symbol in (
        (truth, "true front", GREEN, "circle"),
        (chosen, f"chosen by {score_label}", BLUE, "diamond"),
    ):
        order = sorted(members, key=lambda i: (costs[i], accuracy[i]))
        figure.add_scatter(
            x=costs[order],
            y=accuracy[order],
            mode="lines+markers" if members is truth else "markers",
            name=escaped(name),
            customdata=np.asarray(rows, dtype=np.int32)[order],
            meta="rows",
            hovertemplate=_HOVER,
            line={"shape": "hv", "color": colour, "width": 2},
            marker={"size": 8, "color": colour, "symbol": symbol, "line": {"color": "white", "width": 1}},
        )
    if bound is not None:
        figure.add_vline(x=bound, line={"color": GREY, "dash": "dash"}, annotation={"text": "constraint"})
    figure.update_xaxes(title_text=escaped(cost_label))
    figure.update_yaxes(title_text=escaped(accuracy_label), **view(accuracy))
    return figure


def bars(
    names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], value_label: str
) -> go.Figure:
    """Grouped bars of (value, low, high) by name: one colour per series, intervals as whiskers."""
    figure = go.Figure()
    for (label, estimates), colour in zip(series.items(), (BLUE, GREEN, AMBER, VIOLET), strict=False):
        value, low, high = (np.array(column, dtype=np.float64) for column in zip(*estimates, strict=True))
        figure.add_bar(
            x=[escaped(name) for name in names],
            y=value,
            name=escaped(label),
            marker={"color": colour},
            error_y={
                "array": high - value,
                "arrayminus": value - low,
                "color": GREY,
                "thickness": 1.4,
                "width": 4,
            },
            customdata=np.stack([low, high], axis=1),
            hovertemplate="<b>%{x}</b><br>%{fullData.name}<br>%{y:.3f} (%{customdata[0]:.3f} to "
            "%{customdata[1]:.3f})<extra></extra>",
        )
    figure.update_xaxes(type="category")  # names, also those that look like numbers or dates
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08)
    figure.update_yaxes(title_text=escaped(value_label))
    return figure


def parallel(
    choices: Sequence[tuple[str, Sequence[int], Mapping[int, str]]], values: Mapping[str, Floats]
) -> go.Figure:
    """Each architecture a line across its decisions to its values, coloured by the first value.

    ``choices`` are the name, the choice of each architecture, and the names of choices.
    """
    axes: list[dict[str, object]] = []
    for name, taken, named in choices:
        ticks = sorted(set(taken))
        axis: dict[str, object] = {"label": escaped(name), "values": list(taken), "tickvals": ticks}
        if named:
            axis["ticktext"] = [escaped(_short(named.get(tick, str(tick)))) for tick in ticks]
        axes.append(axis)
    axes += [
        {"label": escaped(name), "values": column}
        for name, column in values.items()
        if np.isfinite(column).all()
    ]
    colour = {"color": next(iter(values.values())), "colorscale": "Viridis"}
    return go.Figure(go.Parcoords(dimensions=axes, line=colour, name="architectures"))


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plane(places: Floats, values: Floats, low: float, label: str) -> go.Figure:
    """Points of ``[N, 2]``, coloured by values from ``low`` on; grey where none is known."""
    rows = np.arange(len(places))
    unknown = ~np.isfinite(values)
    x, y = places[:, 0], places[:, 1]
    figure = go.Figure()
    if unknown.any():
        _points(figure, x[unknown], y[unknown], rows[unknown].tolist(), name="not known", marker=_POINT)
    title = {"text": escaped(label), "font": {"size": 12}}
    marker = {"size": 5, "color": _narrow(values[~unknown]), "colorscale": "Viridis", "opacity": 0.8}
    marker |= {
        "cmin": low,
        "cmax": float(values[~unknown].max()),
        "colorbar": {"title": title, "thickness": 12},
    }
    _points(figure, x[~unknown], y[~unknown], rows[~unknown].tolist(), name=escaped(label), marker=marker)
    figure.update_layout(showlegend=bool(unknown.any()))
    return figure


def view(values: ArrayLike) -> dict[str, list[float]]:
    """The axis range: without the lowest 5 % if they would squeeze the rest into a third of it or less."""
    finite = np.asarray(values, dtype=np.float64)
    lowest, low, high = finite.min(), np.quantile(finite, 0.05), finite.max()
    if low == high or low - lowest < 2 * (high - low):
        return {}
    margin = 0.08 * (high - low)
    return {"range": [float(low - margin), float(high + margin)]}


def hidden(*axes: ArrayLike) -> str:
    """How many points the first view leaves out, as a sentence; empty if none."""
    outside = np.zeros(len(np.asarray(axes[0])), dtype=bool)
    for values in axes:
        bounds = view(values).get("range")
        if bounds is not None:
            outside |= np.asarray(values, dtype=np.float64) < bounds[0]
    count = int(outside.sum())
    shown = f"{counted(count, 'low point')} {'is' if count == 1 else 'are'} outside the view"
    return f"{shown}: double-click to see all." if count else ""


def _add_star(figure: go.Figure, x: Floats, y: Floats, rows: Sequence[int], i: int | None) -> None:
    if i is None or not (math.isfinite(x[i]) and math.isfinite(y[i])):
        return
    marker = {"symbol": "star", "size": 16, "color": AMBER, "line": {"color": "white", "width": 1}}
    _points(figure, [x[i]], [y[i]], [rows[i]], name="best trial", marker=marker)
