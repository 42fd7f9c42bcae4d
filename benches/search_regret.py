"""Regret of search strategies over queries on NAS-Bench-201, from a table of trained networks.

    python benches/search_regret.py --table FILE.npz --embedding FILE.safetensors --seeds 50

A strategy sees the validation accuracy after 12 epochs of every architecture that it asks for. Its regret
after n queries is the best test accuracy (200 epochs) of all architectures less that of the one, of the n,
with the best validation accuracy. Isomorphic cells count as their canonical form. The record goes to
benches/results/regret-nasbench201.json, which is written again after
every seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pynas
from pynas import benchmarks, lissnas, strategies
from pynas.architecture import Architecture
from pynas.trial import Evaluation, Status, Trial

RECORD = Path(__file__).resolve().parent / "results" / "regret-nasbench201.json"
POINTS = (20, 50, 100, 150, 200, 300)

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
    "LISSNAS + evolution": ("lissnas", {"samples": 60, "seeds": 10, "radius": 2, "max_iterations": 2}),
}


class Problem:
    """Both accuracies of every architecture, by the index of its canonical form."""

    def __init__(self, path: str) -> None:
        self.space = pynas.spaces.get("nasbench201")
        spec = f"npz:{path}"
        self.validation = benchmarks.load(f"{spec}#val12_cifar10", self.space).accuracies()
        self.test = benchmarks.load(f"{spec}#test200_cifar10", self.space).accuracies()
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


def summary(curves: list[list[float]], seconds: float) -> dict[str, Any]:
    values = np.array(curves)
    bands = [interval(values[:, i]) for i in range(values.shape[1])]
    return {
        "seeds": len(curves),
        "mean": [round(float(v), 4) for v in values.mean(axis=0)],
        "low": [round(low, 4) for low, _ in bands],
        "high": [round(high, 4) for _, high in bands],
        "final": [round(curve[-1], 4) for curve in curves],
        "ms_per_query": round(1e3 * seconds / values.size, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", required=True, help="npz with val12_cifar10 and test200_cifar10")
    parser.add_argument("--embedding", default="", help="file of 'pynas embed --save'; without: trained")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=20.0, help="begin no further seed after this time")
    parser.add_argument("--only", default="", help="labels, separated by commas")
    parser.add_argument("--record", type=Path, default=RECORD)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(chosen.table)
    wanted = chosen.only.split(",") if chosen.only else list(CONTENDERS)
    labels = [n for n in wanted if CONTENDERS[n][0] in (*strategies.names(), "lissnas")]
    curves: dict[str, list[list[float]]] = {label: [] for label in labels}
    seconds = dict.fromkeys(labels, 0.0)
    started = time.monotonic()
    for seed in range(chosen.seeds):
        if time.monotonic() - started > 60 * chosen.minutes:
            break
        order = random.Random(seed).sample(labels, len(labels))
        for label in order:
            name, options = CONTENDERS[label]
            begun = time.process_time()
            asked = run(problem, name, dict(options), chosen.queries, seed, chosen.embedding)
            seconds[label] += time.process_time() - begun
            curves[label].append(problem.regrets(asked, chosen.queries))
        record = {
            "space": "nasbench201",
            "queries": chosen.queries,
            "best_test": problem.best,
            "signal": "CIFAR-10 validation accuracy after 12 epochs",
            "regret": "CIFAR-10 test accuracy after 200 epochs, mean over runs",
            "options": {label: CONTENDERS[label][1] for label in labels},
            "strategies": {label: summary(curves[label], seconds[label]) for label in labels},
        }
        partial = chosen.record.with_suffix(".part")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(partial, chosen.record)
        print(
            f"seed {seed}", {n: round(r["mean"][-1], 3) for n, r in record["strategies"].items()}, flush=True
        )
    for label, found in sorted(record["strategies"].items(), key=lambda item: item[1]["mean"][-1]):
        points = [f"{found['mean'][n - 1]:.3f}" for n in POINTS if n <= chosen.queries]
        print(f"{label:28}", *points, f"{found['ms_per_query']:.1f} ms")


if __name__ == "__main__":
    main()
