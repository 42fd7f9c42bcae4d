"""LISSNAS on NAS-Bench-201: what each round of shrinking keeps, beside pruning operations everywhere.

    python experiments/lissnas_shrinking.py --table FILE.npz       # a minute

Shrinking sees the validation accuracy after 12 epochs of what it samples. What it kept is judged by the
table: mean test accuracy after 200 epochs over *all* cells kept, the best of them, the shrink index. Beside
it stands operational pruning by a first round's queries: the operations with the best mean accuracy among the
samples, on every edge. The record is benches/results/lissnas-nasbench201.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from records import RESULTS, spread, write

from pynas import lissnas, spaces, tables
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

RECORD = RESULTS / "lissnas-nasbench201.json"
SETTING = {"samples": 60, "seeds": 10, "radius": 2, "max_iterations": 6}
Accuracies = Mapping[Architecture, float]


class Judge:
    """What the table says of a set of cells."""

    def __init__(self, space: SearchSpace, test: Accuracies) -> None:
        self.space, self.test = space, test
        self.mean, self.best = statistics.fmean(test.values()), max(test.values())

    def __call__(self, kept: Iterable[Architecture]) -> dict[str, float]:
        cells = list(kept)
        values = [self.test[cell] for cell in cells]
        mean = statistics.fmean(values)
        return {
            "size": len(cells),
            "mean": mean,
            "best": max(values),
            "diversity": lissnas.diversity(self.space, cells),
            "shrink_index": lissnas.shrink_index(self.mean, mean, self.best, len(self.test), len(cells)),
        }


def rounds(
    space: SearchSpace, validation: Accuracies, judge: Judge, seed: int
) -> tuple[list[dict[str, Any]], Accuracies]:
    """Rounds of one run, each judged, and all that it asked for."""
    found: list[dict[str, Any]] = []
    for limit in range(1, SETTING["max_iterations"] + 1):
        # The same draws every time: a run of fewer rounds is the beginning of one of more.
        run = lissnas.lissnas(
            space, validation.__getitem__, seed=seed, **(SETTING | {"max_iterations": limit})
        )
        if len(run.iterations) < limit or run.space.size != run.iterations[-1].size:
            break  # nothing more came, or it was undone
        row = judge(run.space.members)
        row["pockets"] = len(lissnas.pockets(run.space, run.space.members))
        row["queries"] = run.iterations[-1].queries
        found.append(row)
    return found, run.known


def by_operation(space: SearchSpace, known: Accuracies, judge: Judge, keep: int) -> dict[str, float]:
    """Cells of the ``keep`` operations whose cells have the best mean accuracy among the known ones."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for cell, value in known.items():
        for operation in cell.decisions:
            values[operation].append(value)
    best = sorted(values, key=lambda operation: -statistics.fmean(values[operation]))[:keep]
    count = len(next(iter(known)).decisions)
    return judge(Architecture(space.name, cell) for cell in itertools.product(best, repeat=count))


def run(path: str, seeds: int) -> dict[str, Any]:
    """All seeds."""
    space = spaces.get("nasbench201")
    every = list(space.all())

    def accuracies(column: str) -> dict[Architecture, float]:
        table = tables.load(f"npz:{path}#{column}", space)
        return {cell: float(value) for cell in every if (value := table.accuracy(cell)) is not None}

    validation, test = accuracies("val12_cifar10"), accuracies("test200_cifar10")
    judge = Judge(space, test)
    runs, pruned = [], {keep: [] for keep in (4, 3, 2)}
    for seed in range(seeds):
        found, known = rounds(space, validation, judge, seed)
        runs.append(found)
        # What a first round has sampled at random: the same queries for both.
        uniform = dict(itertools.islice(known.items(), SETTING["samples"]))
        for keep, rows in pruned.items():
            rows.append(by_operation(space, uniform, judge, keep))
    return {
        "setting": SETTING,
        "whole": {"size": len(test), "mean": judge.mean, "best": judge.best},
        "locality": lissnas.autocorrelation(space, test.__getitem__, steps=100_000),
        "runs": runs,
        "operational": {str(keep): rows for keep, rows in pruned.items()},
    }


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    setting, whole, runs = record["setting"], record["whole"], record["runs"]
    lines = [
        "## LISSNAS: shrinking NAS-Bench-201",
        "",
        f"{setting['samples']} samples a round, {setting['seeds']} seed networks, radius",
        f"{setting['radius']}, quality the CIFAR-10 validation accuracy after 12 epochs; judged by the test",
        f"accuracy after 200 epochs of every cell that is kept. Mean and range over {len(runs)} runs.",
        "A round that made things worse is undone and ends the run. Operational pruning keeps what the",
        "first sample has the best mean accuracy with, on every edge: operations, not neighbourhoods.",
        "",
        "| space | runs | cells | mean test accuracy, % | best in it, % | mean distance | shrink index |",
        "|---|---|---|---|---|---|---|",
        f"| whole | | {whole['size']:,} | {whole['mean']:.2f} | {whole['best']:.2f} | | 0 |",
    ]

    def row(name: str, found: list[dict[str, float]]) -> str:
        cells = [("size", 0), ("mean", 2), ("best", 2), ("diversity", 2), ("shrink_index", 2)]
        return (
            f"| {name} | {len(found)} | "
            + " | ".join(spread([one[key] for one in found], digits) for key, digits in cells)
            + " |"
        )

    for number in range(max(map(len, runs))):
        found = [one[number] for one in runs if len(one) > number]
        queries = spread([one["queries"] for one in found], 0)
        lines.append(row(f"round {number + 1}, after {queries} queries", found))
    for keep, found in record["operational"].items():
        lines.append(row(f"operational: {keep} of 5 operations, {setting['samples']} queries", found))
    locality = ", ".join(f"{value:.2f}" for value in record["locality"])
    return [
        *lines,
        "",
        "Locality: autocorrelation of the test accuracy along a random walk of 100,000 mutations,",
        f"{locality} at 1 to {len(record['locality'])} mutations.",
        "",
    ]


def main() -> None:
    """Measure, and keep the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", required=True, help="npz with val12_cifar10 and test200_cifar10")
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.parse_args()
    record = run(chosen.table, chosen.seeds)
    print("\n".join(section(record)))
    write(RECORD, record)


if __name__ == "__main__":
    main()
