"""Measure what a space's operators take on this machine, then search under a limit of latency."""

from __future__ import annotations

import random
import statistics
from functools import partial

import torch

import pynas
from pynas.hardware import LatencyTable, Stopwatch

torch.set_num_threads(1)
space = pynas.spaces.NASBench201(channels=8, num_cells=1)
table = LatencyTable.build(space, threads=1, rounds=5, seconds=0.005, fit_networks=8, held_out=8)
error = table.error()
print(f"{len(table.operators)} operators measured; {error.count} other networks are predicted with ", end="")
print(f"an error of {error.mape:.0f} %, Spearman {error.spearman:.2f}")

rng = random.Random(0)
limit = statistics.median(table.predict(space.sample(rng)) for _ in range(50))
digits = pynas.data.load_images("digits")
evaluator = pynas.ProxyEvaluator(space, *pynas.data.batch(digits, 32, seed=0), proxies=["zico"])
for name, constraints in {"no limit": {}, f"below {limit:.2f} ms": {"latency": limit}}.items():
    result = pynas.search(
        space,
        "evolution",
        objectives=["zico", "-latency"],
        constraints=constraints,
        budget=12,
        evaluator=evaluator,
        hardware=[table],
        strategy_options={"population_size": 6, "sample_size": 3},
    )
    print(f"{name}: {len(result.pareto)} of {len(result.trials)} networks are on the front")
    best = max(result.pareto, key=lambda trial: trial.evaluation.scores["zico"])
    model = space.build(best.architecture, prune=True).eval()
    measured = Stopwatch(seconds=0.1).measure(partial(model, torch.randn(1, 3, 32, 32))).ms
    predicted = table.predict(best.architecture)
    print(f"  zico {best.evaluation.scores['zico']:.0f}, predicted {predicted:.2f} ms, ", end="")
    print(f"measured {measured:.2f} ms: {space.format(best.architecture)}")
