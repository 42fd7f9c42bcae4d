"""The report of a ranking: how well each score orders architectures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pynas._plural import counted
from pynas.ranking.fronts import FrontComparison
from pynas.ranking.rank import BASELINES, Correlation, Estimate, Ranking
from pynas.report import _figures, _influence, document
from pynas.report._architectures import Column, table_of_all, with_unit
from pynas.spaces import SearchSpace


def write_ranking_report(
    path: str | os.PathLike[str],
    ranking: Ranking,
    *,
    title: str = "How scores rank architectures",
    facts: Mapping[str, str] | None = None,
    space: SearchSpace | None = None,
    inline: bool = False,
) -> Path:
    """Write a page about a ranking; it opens without a network connection.

    It shows the correlations and their intervals as bars and as a table: overall, among the most accurate
    architectures and under constraints. It plots each score against accuracy and, for each cost, the Pareto
    front that a score chooses beside the true one. All architectures are in a table that sorts, failed ones
    with their message; where the ranking has trials, the page also shows which decisions matter.

    Args:
        path: HTML file to write.
        ranking: The ranking.
        title: Heading of the page.
        facts: Further facts about how the numbers were obtained, by name.
        space: Space of the ranking's trials, which draws their architectures and names their decisions.
        inline: Put plotly.js, five megabytes, into the page, and not beside it.

    Returns:
        ``path``.
    """
    subtitle = f"{counted(len(ranking.accuracy), 'architecture')}, {ranking.accuracy_label}"
    return document.write_page(path, title, subtitle, _body(ranking, facts or {}, space), inline=inline)


def _body(ranking: Ranking, facts: Mapping[str, str], space: SearchSpace | None) -> Iterator[str]:
    def strength(name: str) -> float:
        value = ranking.correlations[name].spearman.value
        return -math.inf if math.isnan(value) else value

    names = sorted(ranking.correlations, key=strength, reverse=True)
    top = f"Kendall, top {ranking.top:.0%}"
    yield document.grid(
        [document.card("Rank correlation with accuracy", _bars(ranking, names, top), wide=True)]
    )
    yield document.grid([document.card("In numbers", _table(ranking, names, top), wide=True)])
    cards = [(name, _scatter(ranking, name)) for name in names]
    odd = len(cards) % 2 == 1
    yield document.grid(
        document.card(
            f"{_named(name)}: Spearman {_value(ranking.correlations[name].spearman)}",
            content,
            wide=odd and i == len(cards) - 1,
        )
        for i, (name, content) in enumerate(cards)
    )
    for comparison in ranking.fronts:
        yield document.grid(
            [
                document.card(
                    f"Pareto fronts: accuracy and {comparison.cost}", _judged(comparison, names), wide=True
                )
            ]
        )
        charts = [
            document.card(
                f"{_named(name)} and {comparison.cost}", _front(ranking, comparison, name), wide=last and odd
            )
            for name, last in ((name, name == names[-1]) for name in names)
        ]
        yield document.grid(charts)
    if len(ranking.trials) >= 3:
        values = {ranking.accuracy_label: np.array(ranking.accuracy)}
        values |= {name: np.array(ranking.scores[name]) for name in names[:3]}
        architectures = [trial.architecture for trial in ranking.trials]
        yield document.grid(_influence.cards(space, architectures, values, "architectures"))
    yield document.grid([document.card("All architectures", _all(ranking, names, space), wide=True)])
    if facts:
        yield document.grid([document.card("Where the numbers come from", document.facts(facts), wide=True)])


def _bars(ranking: Ranking, names: list[str], top: str) -> str:
    def triple(estimate: Estimate | None) -> tuple[float, float, float]:
        return (math.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)

    chosen = [ranking.correlations[name] for name in names]
    series = {
        "Spearman": [triple(c.spearman) for c in chosen],
        "Kendall": [triple(c.kendall) for c in chosen],
        top: [triple(c.kendall_top) for c in chosen],
    }
    if ranking.bounds:
        series[ranking.constraint] = [triple(c.kendall_within) for c in chosen]
    figure = _figures.bars([_named(name) for name in names], series, "rank correlation")
    remark = (
        f"Whiskers: {ranking.confidence:.0%} bootstrap intervals "
        f"({counted(ranking.resamples, 'resample')}, seed {ranking.seed}). "
        f"The top {ranking.top:.0%} are the most accurate architectures."
    )
    if ranking.bounds:
        count = max(c.count_within for c in chosen)
        met = f"{counted(count, 'architecture')} that {'meets' if count == 1 else 'meet'} it"
        remark += f" Under {ranking.constraint}: Kendall over {met}."
    return document.plot(figure) + document.note(remark)


def _table(ranking: Ranking, names: list[str], top: str) -> str:
    def row(name: str, c: Correlation) -> list[str]:
        within = [_optional(c.spearman_within), _optional(c.kendall_within)] if ranking.bounds else []
        return [
            _named(name),
            _interval(c.spearman),
            _interval(c.kendall),
            _optional(c.spearman_top),
            _optional(c.kendall_top),
            *within,
            f"{c.count:,}",
            f"{c.excluded:,}",
        ]

    columns = ["score", "Spearman", "Kendall", top.replace("Kendall", "Spearman"), top]
    columns += [f"{kind}, {ranking.constraint}" for kind in ("Spearman", "Kendall") if ranking.bounds]
    columns += ["architectures", "failed"]
    return document.table(
        columns, [row(name, ranking.correlations[name]) for name in names], text_columns=["score"]
    )


def _all(ranking: Ranking, names: list[str], space: SearchSpace | None) -> str:
    """Every architecture with its scores and costs, and what failed of it."""
    count = len(ranking.accuracy)
    columns = [Column(ranking.accuracy_label, ranking.accuracy, hover=True)]
    columns += [Column(with_unit(name), ranking.scores[name], hover=True) for name in names]
    costs = {name: values for name, values in ranking.costs.items() if name not in names}
    columns += [Column(with_unit(name), values, hover=True) for name, values in costs.items()]
    states = []
    for i in range(count):
        absent = [name for name in names if not math.isfinite(ranking.scores[name][i])]
        state = f"no {', '.join(absent)}" if absent else "ok"
        message = ranking.trials[i].evaluation.message if ranking.trials else ""
        states.append(f"{state}: {message}" if message else state)
    columns.append(Column("status", states))
    trials = ranking.trials if space is not None else ()
    graphs = [() if space is None else space.graph(trial.architecture) for trial in trials]
    remark = "A click on a row, or on a point of a plot, draws that architecture and copies its text."
    failed = sum(state != "ok" for state in states)
    if failed:
        remark = f"{counted(failed, 'architecture')} without some score; sort by status to see why. {remark}"
    table = table_of_all(
        "architecture",
        Column("number", range(1, count + 1)),
        ranking.labels or [""] * count,
        columns,
        graphs or [()] * count,
        () if space is None else space.node_labels,
    )
    return document.note(remark) + table


def _scatter(ranking: Ranking, name: str) -> str:
    scores, accuracy = np.array(ranking.scores[name]), np.array(ranking.accuracy)
    keep = np.flatnonzero(np.isfinite(scores))
    figure = _figures.against_accuracy(
        scores[keep], accuracy[keep], with_unit(name), ranking.accuracy_label, keep.tolist()
    )
    return document.plot(figure, height=360) + document.note(_figures.hidden(scores[keep], accuracy[keep]))


def _judged(comparison: FrontComparison, names: list[str]) -> str:
    rows = [
        [
            _named(name),
            str(len(comparison.chosen[name].members)),
            f"{comparison.chosen[name].hypervolume_ratio:.4f}",
            f"{comparison.chosen[name].distance:.4f}",
        ]
        for name in names
    ]
    columns = ["score", "architectures on its front", "hypervolume over the true one's", "distance (IGD)"]
    remark = (
        f"The true front has {len(comparison.truth):,} of {counted(comparison.count, 'architecture')}. "
        "A score's front is that of the score and the cost, judged by accuracy. Hypervolumes count the area "
        "above the lowest accuracy and below the highest cost. The distance is the mean over architectures "
        "on the true front of that to the nearest on the score's, with accuracy and cost scaled to [0, 1]."
    )
    return document.table(columns, rows, text_columns=["score"]) + document.note(remark)


def _front(ranking: Ranking, comparison: FrontComparison, name: str) -> str:
    costs, accuracy = np.array(ranking.costs[comparison.cost]), np.array(ranking.accuracy)
    figure = _figures.fronts(
        costs,
        accuracy,
        comparison.truth,
        comparison.chosen[name].members,
        with_unit(comparison.cost),
        ranking.accuracy_label,
        name,
        range(len(accuracy)),
        bound=ranking.bounds.get(comparison.cost),
    )
    return document.plot(figure, height=360) + document.note(_figures.hidden(accuracy))


def _optional(estimate: Estimate | None) -> str:
    return "–" if estimate is None else _interval(estimate)


def _named(name: str) -> str:
    return f"{name} (baseline)" if name in BASELINES else name


def _value(estimate: Estimate) -> str:
    return "not defined" if math.isnan(estimate.value) else f"{estimate.value:.2f}"


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "not defined"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
