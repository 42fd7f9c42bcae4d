"""Regret of search strategies over queries on NAS-Bench-201, from a table of trained networks.

    python experiments/search_regret.py --table FILE.npz --embedding FILE.safetensors --seeds 50

A strategy sees the validation accuracy after 12 epochs of every architecture that it asks for. Its regret
after n queries is the best test accuracy (200 epochs) of all architectures less that of the one, of the n,
with the best validation accuracy. Isomorphic cells count as their canonical form. What each seed asked for is
kept in build/regret-nasbench201.jsonl, from where a run that was killed goes on; the record goes to
benches/results/regret-nasbench201.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import RESULTS, WORK, keep, kept, write

import pynas
from pynas import lissnas, strategies, tables
from pynas.architecture import Architecture
from pynas.trial import Evaluation, Status, Trial

RECORD = RESULTS / "regret-nasbench201.json"
POINTS = (20, 50, 100, 200, 300)

# label: strategy, options. Options other than the defaults say why in docs/results.md.
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "evolution": ("evolution", {}),
    "spos_evolution": ("spos_evolution", {}),
    "nsga2": ("nsga2", {}),
    "local_search": ("local_search", {}),
    "epnas": ("epnas", {}),
    "arch2vec + reinforce": ("reinforce", {}),
    "arch2vec + bayesian (GP)": ("bayesian", {}),
    "arch2vec + bayesian (DNGO)": ("bayesian", {"model": "dngo"}),
    "one-hot + bayesian (GP)": ("bayesian", {"embedding": "encoding"}),
    "LISSNAS + evolution": ("lissnas", {"samples": 40, "seeds": 10, "radius": 3, "max_iterations": 2}),
}


class Problem:
    """Both accuracies of every architecture, by the index of its canonical form."""

    def __init__(self, path: str) -> None:
        self.space = pynas.spaces.get("nasbench201")
        spec = f"npz:{path}"
        self.validation = tables.load(f"{spec}#val12_cifar10", self.space).accuracies()
        self.test = tables.load(f"{spec}#test200_cifar10", self.space).accuracies()
        self._rows: dict[Architecture, int] = {}
        self.best = max(self.test[self.row(architecture)] for architecture in self.space.unique())

    def row(self, architecture: Architecture) -> int:
        if architecture not in self._rows:
            self._rows[architecture] = self.space.index(self.space.canonical(architecture))
        return self._rows[architecture]

    def regrets(self, asked: list[int], queries: int) -> list[float]:
        """After each of ``queries`` queries; where fewer were asked the last goes on."""
        found, best = [], -1
        for row in asked[:queries]:
            if best < 0 or self.validation[row] > self.validation[best]:
                best = row
            found.append(float(self.best - self.test[best]))
        return found + found[-1:] * (queries - len(found))


def ask_and_tell(problem: Problem, strategy: Any, asked: list[int], queries: int) -> None:
    while len(asked) < queries:
        try:
            architecture = strategy.ask()
        except strategies.Exhausted:
            return
        row = problem.row(architecture)
        evaluation = Evaluation(Status.OK, {"validation": float(problem.validation[row])})
        strategy.tell(Trial(len(asked), architecture, evaluation))
        asked.append(row)


def run(
    problem: Problem, name: str, options: dict[str, Any], queries: int, seed: int, file: str
) -> list[int]:
    """Rows asked for, in order."""
    asked: list[int] = []
    if name == "lissnas":
        seen: dict[int, None] = {}

        def quality(architecture: Architecture) -> float:
            row = problem.row(architecture)
            if row not in seen:
                seen[row] = None
                asked.append(row)
            return float(problem.validation[row])

        shrunk = lissnas.lissnas(problem.space, quality, seed=seed, **options)
        inside = strategies.create("evolution", shrunk.space, seed=seed, population_size=20, sample_size=5)
        # What shrinking has paid for is told, not asked for again.
        for number, (architecture, value) in enumerate(shrunk.known.items()):
            if shrunk.space.contains(architecture):
                inside.tell(Trial(number, architecture, Evaluation(Status.OK, {"validation": value})))
        ask_and_tell(problem, inside, asked, queries)
        return asked
    if "embedding" in strategies.options(name):
        options = {"embedding": file, **options}
    ask_and_tell(problem, strategies.create(name, problem.space, seed=seed, **options), asked, queries)
    return asked


def interval(values: np.ndarray[Any, Any], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and interval over seeds after each query."""
    values = np.array([run["regrets"] for run in runs])
    bands = [interval(values[:, i]) for i in range(values.shape[1])]
    return {
        "seeds": len(runs),
        "mean": [round(float(v), 4) for v in values.mean(axis=0)],
        "low": [round(low, 4) for low, _ in bands],
        "high": [round(high, 4) for _, high in bands],
        "final": [round(run["regrets"][-1], 4) for run in runs],
        "ms_per_query": round(1e3 * sum(run["seconds"] for run in runs) / values.size, 2),
    }


_PROBLEM: Problem | None = None  # of a worker process


def _start(table: str) -> None:
    global _PROBLEM
    torch.set_num_threads(1)
    _PROBLEM = Problem(table)


def _job(label: str, seed: int, queries: int, file: str) -> dict[str, Any]:
    assert _PROBLEM is not None
    name, options = CONTENDERS[label]
    begun = time.process_time()
    asked = run(_PROBLEM, name, dict(options), queries, seed, file)
    seconds = time.process_time() - begun
    return {
        "label": label,
        "seed": seed,
        "options": options,
        "regrets": _PROBLEM.regrets(asked, queries),
        "seconds": seconds,
    }


def _present(one: Mapping[str, Any], queries: int) -> bool:
    """Whether an earlier run had the present options."""
    known = CONTENDERS.get(one["label"])
    return known is not None and known[1] == one["options"] and len(one["regrets"]) == queries


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    points = [n for n in POINTS if n <= record["queries"]]
    lines = [
        "## What searches find",
        "",
        f"NAS-Bench-201, {record['queries']} queries. A strategy sees the {record['signal']}; its regret, in",
        f"points of {record['regret']}, is the best of the space,",
        f"{record['best_test']:.2f} %, less that of the architecture with the best validation accuracy so",
        "far. Means over seeds with 95 % bootstrap intervals. `reinforce` and `bayesian` search in an",
        "arch2vec embedding trained without accuracies for 10 epochs. Episode and spread of `reinforce`, and",
        "the options of LISSNAS, were chosen on other seeds.",
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


def main() -> None:
    """Run what is not kept yet, then write the record of all seeds that every strategy has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", required=True, help="npz with val12_cifar10 and test200_cifar10")
    parser.add_argument("--embedding", default="", help="file of 'pynas embed --save'; without: trained")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0, help="others are for choosing options")
    parser.add_argument("--only", default="", help="labels, separated by commas; keeps no record")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--work", type=Path, default=WORK / "regret-nasbench201.jsonl")
    chosen = parser.parse_args()
    wanted = chosen.only.split(",") if chosen.only else list(CONTENDERS)
    labels = [n for n in wanted if CONTENDERS[n][0] in (*strategies.names(), "lissnas")]
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    earlier = [one for one in kept(chosen.work) if _present(one, chosen.queries)]
    runs = [one for one in earlier if one["label"] in labels and one["seed"] in seeds]
    done = {(one["label"], one["seed"]) for one in runs}
    jobs = [(label, seed) for seed in seeds for label in labels if (label, seed) not in done]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, spawn, _start, (chosen.table,)) as pool:
        futures = [pool.submit(_job, *job, chosen.queries, chosen.embedding) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            one = future.result()
            runs.append(one)
            keep(chosen.work, one)
            print(f"{number} of {len(jobs)}: {one['label']}, seed {one['seed']}: {one['regrets'][-1]:.2f}")
    runs.sort(key=lambda one: one["seed"])
    found = {label: summary([r for r in runs if r["label"] == label]) for label in labels}
    if not chosen.only:
        problem = Problem(chosen.table)
        record = {
            "space": "nasbench201",
            "queries": chosen.queries,
            "best_test": problem.best,
            "signal": "CIFAR-10 validation accuracy after 12 epochs",
            "regret": "CIFAR-10 test accuracy after 200 epochs, mean over runs",
            "options": {label: CONTENDERS[label][1] for label in labels},
            "strategies": found,
        }
        write(RECORD, record)
    for label, one in sorted(found.items(), key=lambda item: item[1]["mean"][-1]):
        points = [f"{one['mean'][n - 1]:.3f}" for n in POINTS if n <= chosen.queries]
        print(f"{label:28}", *points, f"{one['ms_per_query']:.1f} ms, {one['seeds']} seeds")


if __name__ == "__main__":
    main()
