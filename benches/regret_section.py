"""The section of docs/results.md on regret, from the record of search_regret.py."""

from __future__ import annotations

import json
from pathlib import Path

RECORD = Path(__file__).resolve().parent / "results" / "regret-nasbench201.json"
POINTS = (20, 50, 100, 200, 300)


def section() -> list[str]:
    """Lines of Markdown; none where nothing was measured."""
    if not RECORD.exists():
        return []
    record = json.loads(RECORD.read_text())
    points = [n for n in POINTS if n <= record["queries"]]
    lines = [
        "## What searches find",
        "",
        f"NAS-Bench-201, {record['queries']} queries. A strategy sees the {record['signal']}; its regret, in",
        f"points of {record['regret']}, is the best of the space,",
        f"{record['best_test']:.2f} %, less that of the architecture with the best validation accuracy so",
        "far.",
        "Means over seeds with 95 % bootstrap intervals. `reinforce` and `bayesian` search in an arch2vec",
        "embedding trained without accuracies for 10 epochs.",
        "",
        "| strategy | seeds | " + " | ".join(f"regret at {n}" for n in points) + " | ms a query |",
        "|" + "---|" * (len(points) + 3),
    ]
    ordered = sorted(record["strategies"].items(), key=lambda item: item[1]["mean"][-1])
    for label, found in ordered:
        cells = [
            f"{found['mean'][n - 1]:.2f} [{found['low'][n - 1]:.2f}, {found['high'][n - 1]:.2f}]"
            for n in points
        ]
        lines.append(f"| {label} | {found['seeds']} | {' | '.join(cells)} | {found['ms_per_query']:.1f} |")
    return [*lines, ""]
