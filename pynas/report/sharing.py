"""The report of an analysis of weight sharing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from pynas._plural import counted
from pynas.analysis import SettingAnalysis, SharingAnalysis
from pynas.ranking.correlation import Estimate
from pynas.report import _figures, document
from pynas.report._architectures import Column, table_of_all

_COLOURS = (document.BLUE, document.GREEN, document.AMBER, document.VIOLET, document.GREY)


def write_sharing_report(
    path: str | os.PathLike[str],
    analysis: SharingAnalysis,
    *,
    title: str = "How much weight sharing helps",
    facts: Mapping[str, str] | None = None,
    inline: bool = False,
) -> Path:
    """Write a page about an analysis; it opens without a network connection.

    It shows rank correlations with their intervals, estimates against the ground truth, what picking and
    pruning find and lose compared with chance, stability between seeds and checkpoints, and the bias of each
    operation.

    Args:
        path: HTML file to write.
        analysis: The analysis.
        title: Heading of the page.
        facts: Further facts about how the numbers were obtained, by name.
        inline: Put plotly.js, five megabytes, into the page, and not beside it.

    Returns:
        ``path``.
    """
    seeds = analysis.settings[0].estimates.shape[0]
    subtitle = ", ".join(
        (
            counted(len(analysis.truth), "architecture"),
            counted(len(analysis.settings), "setting"),
            counted(seeds, "seed"),
        )
    )
    return document.write_page(path, title, subtitle, _body(analysis, facts or {}), inline=inline)


def _body(analysis: SharingAnalysis, facts: Mapping[str, str]) -> Iterator[str]:
    settings, asked = analysis.settings, analysis.protocol
    names = [s.name for s in settings]
    series = {
        "Kendall": [_triple(s.kendall) for s in settings],
        "Spearman": [_triple(s.spearman) for s in settings],
        f"Kendall, top {asked.top:.0%}": [_triple(s.kendall_top) for s in settings],
    }
    remark = (
        f"Means over seeds, last checkpoint. Whiskers: {asked.confidence:.0%} bootstrap intervals over "
        f"architectures ({counted(asked.resamples, 'resample')}, seed {asked.seed})."
    )
    bars = document.plot(_figures.bars(names, series, "rank correlation")) + document.note(remark)
    yield document.grid(
        [document.card(f"Rank correlation with ground-truth {analysis.quality.name}", bars, wide=True)]
    )
    yield document.grid([document.card("In numbers", _numbers(analysis), wide=True)])
    yield document.grid(
        document.card(f"{s.name}: Kendall {s.kendall.value:.3f}", _scatter(analysis, s)) for s in settings
    )
    yield document.grid([document.card("Picking the best", _picks(analysis), wide=True)])
    yield document.grid([document.card("Pruning the worst", _prunings(analysis), wide=True)])
    rows = list(_stability_rows(analysis))
    if rows:
        columns = [
            "setting",
            "between",
            "Kendall, mean",
            "lowest",
            f"std ({analysis.quality.difference})",
            "std without common shifts",
            "reliability",
            "regret of one's best in another",
        ]
        remark = (
            "Reliability (ICC) is the share of a run's variance that the architectures explain. A common "
            "shift of all architectures changes no order."
        )
        content = document.table(columns, rows, text_columns=["setting", "between"]) + document.note(remark)
        yield document.grid([document.card("Stability", content, wide=True)])
    if settings[0].bias:
        yield document.grid([document.card("Bias of operations", _bias(analysis), wide=True)])
    yield document.grid([document.card("All architectures", _all(analysis), wide=True)])
    if facts:
        yield document.grid([document.card("Where the numbers come from", document.facts(facts), wide=True)])


def _numbers(analysis: SharingAnalysis) -> str:
    top = f"{analysis.protocol.top:.0%}"
    costs = list(analysis.settings[0].cost_bias)
    columns = ["setting", "Kendall", "Spearman", f"Kendall, top {top}", "averaged", "against the first"]
    columns += [f"rank error and {cost}" for cost in costs]
    rows = [
        [
            s.name,
            interval(s.kendall),
            interval(s.spearman),
            interval(s.kendall_top),
            f"{s.averaged:.3f}",
            interval(s.against_first),
            *(interval(s.cost_bias[cost]) for cost in costs),
        ]
        for s in analysis.settings
    ]
    remark = "Averaged: Kendall of the mean estimate over all seeds and checkpoints."
    return document.table(columns, rows, text_columns=["setting"]) + document.note(remark)


def _all(analysis: SharingAnalysis) -> str:
    """Every architecture with its ground truth and its estimates."""
    count, unit = len(analysis.truth), analysis.quality.unit
    columns = [Column(f"ground truth ({unit})", list(analysis.truth), hover=True)]
    columns += [
        Column(f"{s.name} ({unit})", s.estimates[:, -1].mean(axis=0), hover=True) for s in analysis.settings
    ]
    labels = analysis.labels or ("",) * count
    remark = "Estimates are means over seeds. A click on a row or a point shows and copies its architecture."
    table = table_of_all("architecture", Column("number", range(1, count + 1)), labels, columns)
    return document.note(remark) + table


def _scatter(analysis: SharingAnalysis, setting: SettingAnalysis) -> str:
    figure = _figures.against_accuracy(
        setting.estimates[:, -1].mean(axis=0),
        analysis.truth,
        f"with shared weights ({analysis.quality.unit}), mean over seeds",
        f"ground truth ({analysis.quality.unit})",
        range(len(analysis.truth)),
    )
    return document.plot(figure, height=360)


def _picks(analysis: SharingAnalysis) -> str:
    shares = analysis.protocol.shares
    columns = ["setting", "picked", f"regret ({analysis.quality.difference})", "rank of the best"]
    columns += [f"finds a top {share:.0%}" for share in shares]
    rows = []
    for name, picks in [("chance", analysis.chance), *((s.name, s.picks) for s in analysis.settings)]:
        for p in picks:
            found = [f"{p.found[share]:.2f}" for share in shares]
            rows.append([name, str(p.count), f"{p.regret:.2f}", f"{p.rank:.1f}", *found])
    return document.table(columns, rows, text_columns=["setting"])


def _prunings(analysis: SharingAnalysis) -> str:
    figure = go.Figure()
    for setting, colour in zip(analysis.settings, _COLOURS * len(analysis.settings), strict=False):
        figure.add_scatter(
            x=[p.share for p in setting.prunings],
            y=[p.worst_removed for p in setting.prunings],
            name=document.escaped(setting.name),
            mode="lines+markers",
            line={"color": colour},
        )
    figure.add_scatter(
        x=[p.share for p in analysis.chance_prunings],
        y=[p.worst_removed for p in analysis.chance_prunings],
        name="chance",
        mode="lines",
        line={"color": document.GREY, "dash": "dash"},
    )
    figure.update_xaxes(title_text="share that is removed")
    figure.update_yaxes(title_text="share of the worst that is removed", range=[0, 1.02])
    shares = analysis.protocol.shares
    columns = ["setting", "removed", "of the worst", *(f"of the top {s:.0%}" for s in shares)]
    columns += [f"{what} ({analysis.quality.difference})" for what in ("mean gains", "best left")]
    rows = []
    for name, found in [
        ("chance", analysis.chance_prunings),
        *((s.name, s.prunings) for s in analysis.settings),
    ]:
        for p in found:
            lost = [f"{p.best_lost[s]:.2f}" for s in shares]
            numbers = [f"{p.gain:+.2f}", f"{p.best_left:+.2f}"]
            rows.append([name, f"{p.share:.0%}", f"{p.worst_removed:.2f}", *lost, *numbers])
    return document.plot(figure, height=360) + document.table(columns, rows, text_columns=["setting"])


def _stability_rows(analysis: SharingAnalysis) -> Iterator[list[str]]:
    truth = [analysis.truth_stability] if analysis.truth_stability else []
    found = [("stand-alone training", "repeats", truth)]
    for s in analysis.settings:
        found.append((s.name, "seeds", [s.seeds] if s.seeds else []))
        found.append((s.name, "checkpoints", list(s.checkpoints)))
    for name, between, values in found:
        if values:
            table = np.array(
                [(v.tau, v.tau_lowest, v.std, v.std_centred, v.reliability, v.best_regret) for v in values]
            )
            mean = table.mean(axis=0)
            formats = (".3f", ".3f", ".2f", ".2f", ".2f", ".2f")
            yield [name, between, *(_number(x, f) for x, f in zip(mean, formats, strict=True))]


def _bias(analysis: SharingAnalysis) -> str:
    operations = [bias.name for bias in analysis.settings[0].bias]
    series = {s.name: [_triple(bias.slope) for bias in s.bias] for s in analysis.settings[:4]}
    figure = _figures.bars(operations, series, "change of rank error with each copy")
    columns = ["setting", "operation", "present in", "mean rank error", "minus all others", "each copy"]
    rows = [
        [
            s.name,
            bias.name,
            str(bias.present),
            interval(bias.error),
            interval(bias.contrast),
            interval(bias.slope),
        ]
        for s in analysis.settings
        for bias in s.bias
    ]
    remark = (
        "Rank errors go from -1 to 1; above zero, shared weights rank architectures with the operation too "
        "high."
    )
    table = document.table(columns, rows, text_columns=["setting", "operation"])
    return document.plot(figure) + document.note(remark) + table


def _triple(estimate: Estimate | None) -> tuple[float, float, float]:
    return (math.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "not defined"


def interval(estimate: Estimate | None) -> str:
    """A value and its interval; a dash for None."""
    if estimate is None:
        return "-"
    if math.isnan(estimate.value):
        return "not defined"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
