"""The report of a ranking: how well each score orders architectures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pynas.fronts import FrontComparison
from pynas.ranking import BASELINES, Correlation, Estimate, Ranking
from pynas.report import _figures, _page


def write_ranking_report(
    path: str | os.PathLike[str],
    ranking: Ranking,
    *,
    title: str = "How scores rank architectures",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write a page about a ranking that opens without a network.

    It shows the correlations with their intervals as bars and as a table, overall, within the most accurate
    and under constraints; each score against accuracy; and for each cost the Pareto front that a score
    chooses beside the true one.

    Args:
        path: HTML file to write.
        ranking: The ranking.
        title: Heading of the page.
        facts: What else to say about where the numbers come from, by name.

    Returns:
        ``path``.
    """
    subtitle = f"{len(ranking.accuracy):,} architectures, {ranking.accuracy_label}"
    return _page.write_page(path, title, subtitle, _body(ranking, facts or {}))


def _body(ranking: Ranking, facts: Mapping[str, str]) -> Iterator[str]:
    def strength(name: str) -> float:
        value = ranking.correlations[name].spearman.value
        return -math.inf if math.isnan(value) else value

    names = sorted(ranking.correlations, key=strength, reverse=True)
    top = f"Kendall, top {ranking.top:.0%}"
    yield _page.grid([_page.card("Rank correlation with accuracy", _bars(ranking, names, top), wide=True)])
    yield _page.grid([_page.card("In numbers", _table(ranking, names, top), wide=True)])
    cards = [(name, _scatter(ranking, name)) for name in names]
    odd = len(cards) % 2 == 1
    yield _page.grid(
        _page.card(
            f"{_named(name)}: Spearman {_value(ranking.correlations[name].spearman)}",
            content,
            wide=odd and i == len(cards) - 1,
        )
        for i, (name, content) in enumerate(cards)
    )
    for comparison in ranking.fronts:
        yield _page.grid(
            [
                _page.card(
                    f"Pareto fronts: accuracy and {comparison.cost}", _judged(comparison, names), wide=True
                )
            ]
        )
        charts = [
            _page.card(f"{_named(name)} and {comparison.cost}", _front(ranking, comparison, name))
            for name in names
        ]
        yield _page.grid(charts)
    if facts:
        yield _page.grid([_page.card("Where the numbers come from", _page.facts(facts), wide=True)])


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
        f"Whiskers: {ranking.confidence:.0%} bootstrap intervals ({ranking.resamples:,} resamples, seed "
        f"{ranking.seed}). The top {ranking.top:.0%} are the most accurate architectures."
    )
    if ranking.bounds:
        count = max(c.count_within for c in chosen)
        remark += f" Under {ranking.constraint}: Kendall over the {count:,} architectures that meet it."
    return _page.plot(figure) + _page.note(remark)


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
    columns += ["architectures", "without a score"]
    return _page.table(
        columns, [row(name, ranking.correlations[name]) for name in names], text_columns=["score"]
    )


def _scatter(ranking: Ranking, name: str) -> str:
    scores, accuracy = np.array(ranking.scores[name]), np.array(ranking.accuracy)
    keep = np.flatnonzero(np.isfinite(scores))
    labels = ranking.labels or [""] * len(accuracy)
    hover = [_page.escaped(labels[i]) for i in keep]
    figure = _figures.against_accuracy(scores[keep], accuracy[keep], name, ranking.accuracy_label, hover)
    return _page.plot(figure, height=360) + _page.note(_figures.hidden(scores[keep], accuracy[keep]))


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
        f"The true front has {len(comparison.truth):,} of {comparison.count:,} architectures. A score's "
        "front is that of the score and the cost; it is judged by accuracy. Hypervolumes are above the "
        "lowest accuracy and below the highest cost. The distance goes from each architecture on the true "
        "front to the nearest on the score's, averaged, with accuracy and cost scaled to [0, 1]."
    )
    return _page.table(columns, rows, text_columns=["score"]) + _page.note(remark)


def _front(ranking: Ranking, comparison: FrontComparison, name: str) -> str:
    costs, accuracy = np.array(ranking.costs[comparison.cost]), np.array(ranking.accuracy)
    labels = ranking.labels or [""] * len(accuracy)
    figure = _figures.fronts(
        costs,
        accuracy,
        comparison.truth,
        comparison.chosen[name].members,
        comparison.cost,
        ranking.accuracy_label,
        name,
        [_page.escaped(label) for label in labels],
        bound=ranking.bounds.get(comparison.cost),
    )
    return _page.plot(figure, height=360) + _page.note(_figures.hidden(accuracy))


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
