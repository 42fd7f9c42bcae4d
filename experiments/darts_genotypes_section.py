"""The part of docs/results.md on cells that DARTS finds, from the record of darts_genotypes.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "## Cells that differentiable search finds, against random ones trained equally",
        "",
        "Searches of first order, each from another seed; then every cell is trained from scratch with the",
        "same data, number of steps and seeds as the random ones. No search has seen the test data. Mean,",
        "standard deviation and range are over cells, each the mean of its trainings; a percentile is the",
        "share of random cells that are worse.",
        "",
    ]
    if "cifar10" in record:
        lines += _section_cifar10(record["cifar10"])
    if "text" in record:
        lines += _section_text(record["text"])
    return lines


def _section_cifar10(record: Mapping[str, Any]) -> list[str]:
    setting, drawn = record["setting"], record["random"]
    data, network, searched, trained = (setting[key] for key in ("data", "network", "search", "alone"))
    lines = [
        "### CIFAR-10",
        "",
        f"Networks of {network['num_cells']} cells and {network['channels']} channels on {data['images']:,}",
        f"images of {data['size']} pixels: {searched['epochs']} epochs of search, weights on one half and",
        f"architecture on the other; then {trained['epochs']} epochs from scratch, with",
        f"{setting['repeats']} seeds each; tested on {data['test']:,} others. The row of equal size has the",
        "same cells with the number of channels that comes nearest to the random cells' mean number of",
        "parameters. Skips and pools are out of 16 operations.",
        "",
        "| cells | test accuracy | percentile | parameters | MFLOPs | skips | pools |",
        "|---|---|---|---|---|---|---|",
        _row_cifar10(f"{len(drawn)} random", drawn, None),
    ]
    for name, found in record["found"].items():
        lines.append(_row_cifar10(f"{len(found['cells'])} of {name}", found["cells"], drawn))
        lines.append(_row_cifar10("of equal size", found["of_equal_size"], drawn))
    return [*lines, "", *_cells(record)]


def _row_cifar10(
    title: str, rows: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]] | None
) -> str:
    means = _means(rows)
    flops = [2 * row["macs"] / 1e6 for row in rows]
    return (
        f"| {title} | {_spread(means, 2)} | {_percentiles(means, drawn, 1)} "
        f"| {_range([row['params'] / 1e3 for row in rows], 1)} k | {_range(flops, 1)} "
        f"| {_range([row['skips'] for row in rows], 1)} | {_range([row['pools'] for row in rows], 1)} |"
    )


def _section_text(record: Mapping[str, Any]) -> list[str]:
    setting, drawn = record["setting"], record["random"]
    data, network, searched, trained = (setting[key] for key in ("data", "network", "search", "alone"))
    lines = [
        "### WikiText-2",
        "",
        f"Cells of {network['nodes']} nodes and {network['features']} features, models of",
        f"{record['params']:,} parameters all. {data['words']:,} words of the validation split,",
        f"{1 - data['alpha_share']:.0%} for weights and the rest for the architecture",
        f"({searched['epochs']} epochs of search; {trained['epochs']} from scratch, with",
        f"{setting['repeats']} seeds each), tested on {data['test']:,} words of the test split;",
        f"{data['vocabulary']:,} words are",
        f"known. Word frequencies alone reach a perplexity of {record['unigram']:.1f}.",
        "",
        "| cells | test perplexity | percentile | held-out perplexity | depth of the cell |",
        "|---|---|---|---|---|",
        _row_text(f"{len(drawn)} random", drawn, None),
    ]
    for name, found in record["found"].items():
        lines.append(_row_text(f"{len(found['cells'])} of {name}", found["cells"], drawn))
    return [*lines, "", *_cells(record)]


def _row_text(
    title: str, rows: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]] | None
) -> str:
    means = _means(rows)
    held = [statistics.fmean(row["validation"]) for row in rows]
    return (
        f"| {title} | {_spread(means, 1)} | {_percentiles(means, drawn, -1)} | {_spread(held, 1)} "
        f"| {_range([row['depth'] for row in rows], 1)} |"
    )


def _cells(record: Mapping[str, Any]) -> list[str]:
    """What was found, and how long that took."""
    lines = []
    for name, found in record["found"].items():
        seconds = statistics.fmean(found["search_seconds"])
        lines += [f"Found by {name}, in {seconds:.0f} s of processor time each:", ""]
        lines += [f"- `{row['cell']}`" for row in found["cells"]]
        lines.append("")
    return lines


def _means(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [statistics.fmean(row["scores"]) for row in rows]


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{statistics.fmean(values):.{digits}f}{deviation} [{low}, {high}]"


def _range(values: Sequence[float], digits: int) -> str:
    places = 0 if all(float(value).is_integer() for value in values) else digits
    low, high = (f"{value:.{places}f}" for value in (min(values), max(values)))
    return f"{statistics.fmean(values):.{digits}f} [{low}, {high}]"


def _percentiles(means: Sequence[float], drawn: Sequence[Mapping[str, Any]] | None, sign: int) -> str:
    """Of each found cell among the random ones; equal ones count half."""
    if drawn is None:
        return "-"
    others = _means(drawn)
    shares = [
        statistics.fmean((sign * mean > sign * other) + 0.5 * (mean == other) for other in others)
        for mean in means
    ]
    return ", ".join(f"{100 * share:.0f}" for share in shares)
