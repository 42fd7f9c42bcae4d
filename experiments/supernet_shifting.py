"""Supernet Shifting on NAS-Bench-201 with real images: how well shared weights rank, before and after.

    python experiments/supernet_shifting.py --data FOLDER            # < 20 minutes on 2 cores
    python experiments/supernet_shifting.py --data FOLDER --tiny     # seconds, to see that it runs

A supernet is trained on CIFAR-10 by uniform single paths, then shifted by an evolutionary search, for each
seed; the shifted one is transferred to CIFAR-100 with a new classifier. Kendall's tau with the table's
accuracies over random cells and over the best 5 % of them is taken before and after; the cell found is looked
up. Seeds that are done are kept in build/supernet-shifting.jsonl; the record is
benches/results/supernet-shifting.json, of which section() makes a part of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import RESULTS, WORK, keep, kept, spread, write
from torch import Tensor

from pynas.architecture import Architecture
from pynas.data import CropAndFlip
from pynas.spaces import NASBench201
from pynas.supernet import SharedWeights, SinglePath, Trainer, TrainingOptions, UniformSampler, build
from pynas.supernet.evaluation import SubnetEvaluator
from pynas.supernet.order import OrderReference
from pynas.supernet.shifting import Shifting, ShiftingEvolution, ShiftingOptions, transfer

RECORD = RESULTS / "supernet-shifting.json"
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)

# Chosen on another seed. With a small last rate supernets of a few thousand images become more accurate and
# rank worse. A new classifier takes more steps, and weights that follow it.
FULL = {
    "channels": 16, "num_cells": 1, "size": 8, "images": 4000, "training_steps": 16_000, "batch_size": 64,
    "learning_rate": 0.2, "final_learning_rate": 0.1, "generations": 5, "population": 20, "steps": 5,
    "shift_batch": 128, "shift_rate": 1e-3, "transfer_steps": 40, "transfer_rate": 1e-2,
    "ranked": 100, "validation": 2000, "seeds": 3,
}  # fmt: skip
TINY = FULL | {
    "channels": 4, "images": 256, "training_steps": 4, "generations": 1, "population": 4, "steps": 1,
    "transfer_steps": 1, "shift_batch": 64, "ranked": 6, "validation": 100, "seeds": 1,
}  # fmt: skip


def images(values: Any, size: int) -> Tensor:
    """Normalised ``[N, 3, size, size]`` of bytes ``[N, 32, 32, 3]``; means of squares where smaller."""
    x = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.adaptive_avg_pool2d((x - MEAN) / STD, size)


def table(folder: Path, space: NASBench201, column: str) -> dict[Architecture, float]:
    """Published accuracies of all cells."""
    with np.load(folder / "nb201_accuracy.npz", allow_pickle=False) as file:
        pairs = zip(file["arch_str"], file[column], strict=True)
        return {
            space.parse(bytes(text).decode()): float(value) for text, value in pairs if np.isfinite(value)
        }


def shift(
    model: SharedWeights,
    data: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    known: Mapping[Architecture, float],
    setting: Mapping[str, Any],
    seed: int,
    classifier_rate: float | None = None,
) -> dict[str, Any]:
    """Order before and after a search, and the cell that was found."""
    calibration = [data[0][start : start + 128] for start in range(0, min(512, len(data[0])), 128)]
    evaluate = SubnetEvaluator(model, *held, calibration=calibration)
    reference = OrderReference.draw(known, setting["ranked"], seed=seed)
    before = reference.measure(evaluate)
    population = setting["population"]
    strategy = ShiftingEvolution(
        model.space,
        seed=seed,
        population_size=population,
        top=max(2, population // 5),
        mutations=population // 2,
        crossovers=population // 2,
    )
    options = ShiftingOptions(
        generations=setting["generations"],
        steps=setting["steps"],
        batch_size=setting["shift_batch"],
        learning_rate=setting["shift_rate"],
        classifier_learning_rate=classifier_rate,
    )
    start = time.perf_counter()
    found = Shifting(model, *data, evaluate, options, strategy=strategy, seed=seed).run()
    seconds = time.perf_counter() - start
    after = reference.measure(evaluate)
    best = found.best.architecture
    return {
        "before": asdict(before),
        "after": asdict(after),
        "cell": model.space.format(best),
        "found": known[best],
        "best": max(known.values()),
        "seconds": seconds,
    }


def run(folder: Path, setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train, shift, transfer and shift again."""
    torch.set_num_threads(1)
    space = NASBench201(channels=setting["channels"], num_cells=setting["num_cells"])
    size, count, held_out = setting["size"], setting["images"], setting["validation"]
    with np.load(folder / "cifar10_train_4k.npz") as train, np.load(folder / "cifar10_test_2k.npz") as test:
        ten = images(train["images"][:count], size), torch.from_numpy(train["labels"][:count])
        ten_held = images(test["images"][:held_out], size), torch.from_numpy(test["labels"][:held_out])
    with np.load(folder / "cifar100_subset.npz") as file:
        hundred = images(file["train_images"], size), torch.from_numpy(file["train_labels"])
        part = slice(0, held_out)
        hundred_held = images(file["test_images"][part], size), torch.from_numpy(file["test_labels"][part])
    tables = {name: table(folder, space, f"test200_{name}") for name in ("cifar10", "cifar100")}
    torch.manual_seed(seed)
    model = build(space, 10)
    options = TrainingOptions(
        steps=setting["training_steps"],
        batch_size=setting["batch_size"],
        learning_rate=setting["learning_rate"],
        final_learning_rate=setting["final_learning_rate"],
    )
    method = SinglePath(UniformSampler(space))
    start = time.perf_counter()
    trained = Trainer(model, *ten, method, options, seed=seed, transform=CropAndFlip(size // 8)).train()
    row: dict[str, Any] = {"seed": seed, "training_seconds": time.perf_counter() - start}
    row["training_accuracy"] = statistics.fmean(trained.accuracies[-100:])
    row["cifar10"] = shift(model, ten, ten_held, tables["cifar10"], setting, seed)
    transfer(model, 100, seed)
    anew = {**setting, "steps": setting["transfer_steps"], "shift_rate": setting["transfer_rate"]}
    row["cifar100"] = shift(model, hundred, hundred_held, tables["cifar100"], anew, seed, 0.05)
    return row


def all_seeds(
    folder: Path, setting: Mapping[str, Any], work: Path, processes: int = 2
) -> list[dict[str, Any]]:
    """Rows of all seeds; those kept in ``work`` under this setting are not measured again."""
    known = {one["row"]["seed"]: one["row"] for one in kept(work) if one["setting"] == setting}
    missing = [seed for seed in range(setting["seeds"]) if seed not in known]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn) as pool:
        futures = [pool.submit(run, folder, setting, seed) for seed in missing]
        for future in as_completed(futures):
            row = future.result()
            known[row["seed"]] = row
            keep(work, {"setting": setting, "row": row})
            print(json.dumps(row), flush=True)
    return [known[seed] for seed in sorted(known)]


def section(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    setting, seeds = record["setting"], record["seeds"]
    lines = [
        "## Supernet Shifting on NAS-Bench-201",
        "",
        f"A supernet of {setting['channels']} channels and {setting['num_cells']} cell a stage, trained by",
        f"uniform single paths on {setting['images']:,} CIFAR-10 images of {setting['size']} pixels for",
        f"{setting['training_steps']:,} steps of {setting['batch_size']}, then shifted (the form of the",
        f"authors' code, {setting['generations'] + 1} generations of {setting['population']},",
        f"{setting['steps']} steps each), then transferred to CIFAR-100 ({setting['transfer_steps']} steps",
        "each), where before is with a new classifier that knows nothing. Kendall's tau over",
        f"{setting['ranked']} random cells and over {setting['ranked']} of the best 5 % by published test",
        f"accuracy; mean and range over {len(seeds)} seeds.",
        "",
        "| images | over | before | after | test accuracy of the cell found (best known) |",
        "|---|---|---|---|---|",
    ]
    for name in ("cifar10", "cifar100"):
        found = spread([row[name]["found"] for row in seeds], 2) + f" ({seeds[0][name]['best']:.2f})"
        for over, title in (("overall", "random cells"), ("top", "best 5 %")):
            taus = [spread([row[name][when][over] for row in seeds], 3) for when in ("before", "after")]
            lines.append(f"| {name} | {title} | {taus[0]} | {taus[1]} | {found} |")
            found = ""
    risen = {
        over: [
            sum(row[name]["after"][over] > row[name]["before"][over] for row in seeds)
            for name in ("cifar10", "cifar100")
        ]
        for over in ("overall", "top")
    }
    return [
        *lines,
        "",
        f"Of {len(seeds)} seeds tau over the best cells rises in {risen['top'][0]} on CIFAR-10 and in",
        f"{risen['top'][1]} on CIFAR-100, that over random cells in {risen['overall'][0]} and in",
        f"{risen['overall'][1]}: good candidates are what is trained, so their order gains, not all others'.",
        "",
    ]


def main() -> None:
    """Measure, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR and NAS-Bench-201 files")
    parser.add_argument("--tiny", action="store_true", help="seconds; keeps no record")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each, a seed each")
    chosen = parser.parse_args()
    setting = TINY if chosen.tiny else FULL
    work = WORK / ("supernet-shifting-tiny.jsonl" if chosen.tiny else "supernet-shifting.jsonl")
    record = {"setting": setting, "seeds": all_seeds(chosen.data, setting, work, chosen.processes)}
    print("\n".join(section(record)))
    if not chosen.tiny:
        write(RECORD, record)


if __name__ == "__main__":
    main()
