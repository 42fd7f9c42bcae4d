"""Cells that DARTS finds, on CIFAR-10 and on WikiText-2, against random cells trained equally.

    python experiments/darts_genotypes.py --data FOLDER --only cifar10   # half an hour on a thread
    python experiments/darts_genotypes.py --data FOLDER --only text      # half an hour on a thread
    python experiments/darts_genotypes.py --data FOLDER --tiny           # seconds, to see that it runs

For each seed a cell is searched by gradient of first order, on text with a warm-up of the weights too; every
cell found, and random ones of its space, are trained from scratch with the same data, steps and seeds, and
tested on data that no search has seen. Where killed, it goes on with what is in build/darts-genotypes. The
record is benches/results/darts-genotypes.json; section() makes a part of docs/results.md of it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from darts_genotypes_section import section
from darts_genotypes_settings import FULL, TINY
from records import RESULTS, WORK, once, write
from supernet_shifting import images

from pynas.analysis.operations import operations
from pynas.analysis.standalone import ground_truth
from pynas.analysis.tasks import ImageTask
from pynas.architecture import Architecture
from pynas.data.text import Vocabulary, read_words, unigram_perplexity
from pynas.spaces import DARTSCNN, DARTSRNN
from pynas.supernet import Differentiable, Trainer, TrainingOptions
from pynas.supernet.language_alone import train_cell_alone
from pynas.supernet.language_training import TextSchedule, initial_language_model, train_language_model

RECORD = RESULTS / "darts-genotypes.json"


def draw(space: Any, count: int) -> list[Architecture]:
    """Different random cells."""
    rng, found = random.Random(0), dict[Architecture, None]()
    while len(found) < count:
        found.setdefault(space.canonical(space.sample(rng)))
    return list(found)


def searches(
    half: str, setting: Mapping[str, Any], work: Path, search: Callable[[float, int], str]
) -> dict[str, list[dict[str, Any]]]:
    """Of each way to search the cell that each seed found, as text, and its seconds of processor time."""

    def timed(warm_up: float, seed: int) -> dict[str, Any]:
        start = time.process_time()
        return {"cell": search(warm_up, seed), "seconds": time.process_time() - start}

    found: dict[str, list[dict[str, Any]]] = {}
    for name, warm_up in setting["warm_up"].items():
        key = [setting["data"], setting["network"], setting["search"], warm_up]
        found[name] = [
            once(work, f"{half} search {seed}", key, partial(timed, warm_up, seed))
            for seed in setting["seeds"]
        ]
    return found


# ---- CIFAR-10 ----------------------------------------------------------------------------------------------


def cifar10(folder: Path, setting: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Search, and train what was found and random cells alone."""
    space = DARTSCNN(**setting["network"])
    data, searched, trained = setting["data"], setting["search"], setting["alone"]
    with np.load(folder / "cifar10_train_4k.npz") as train, np.load(folder / "cifar10_test_2k.npz") as test:
        count, tested, size = data["images"], data["test"], data["size"]
        task = ImageTask(
            images(train["images"][:count], size).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(train["labels"][:count]),
            images(test["images"][:tested], size),
            torch.from_numpy(test["labels"][:tested]),
            10,
            "CIFAR-10",
        )

    def search(warm_up: float, seed: int) -> str:
        torch.manual_seed(seed)
        network = space.supernet(10)
        options = TrainingOptions(
            searched["epochs"], batch_size=searched["batch_size"], learning_rate=searched["rate"]
        )
        method = Differentiable(learning_rate=searched["alpha_rate"], warm_up=warm_up)
        Trainer(network, task.inputs, task.targets, method, options, seed=seed).train()
        return space.compact(space.parse(network.derive()))

    options = TrainingOptions(
        trained["epochs"], batch_size=trained["batch_size"], learning_rate=trained["rate"]
    )

    def alone(title: str, archs: Sequence[Architecture], width: int) -> list[dict[str, Any]]:
        made = DARTSCNN(channels=width, num_cells=space.num_cells)
        work.mkdir(parents=True, exist_ok=True)
        scores = ground_truth(
            made,
            archs,
            task,
            options,
            repeats=setting["repeats"],
            cache=work / "cifar10-alone.jsonl",
            on_result=lambda arch, seed, value: print(f"{title}, seed {seed}: {value:.2f}", flush=True),
        )
        return [_row(made, arch, scores[:, i].tolist(), size) for i, arch in enumerate(archs)]

    drawn = draw(space, setting["random"])
    params = statistics.fmean(space.params(arch) for arch in drawn)
    found: dict[str, Any] = {}
    for name, rows in searches("cifar10", setting, work, search).items():
        archs = [space.parse(row["cell"]) for row in rows]
        widths = [_width(space, arch, params) for arch in archs]
        found[name] = {
            "cells": alone(name, archs, space.channels),
            "of_equal_size": [
                alone(f"{name}, {width} channels", [arch], width)[0]
                for arch, width in zip(archs, widths, strict=True)
            ],
            "search_seconds": [row["seconds"] for row in rows],
        }
    return {
        "setting": dict(setting),
        "found": found,
        "random": alone("random", drawn, space.channels),
    }


def _row(space: DARTSCNN, arch: Architecture, scores: list[float], size: int) -> dict[str, Any]:
    used = operations(space, arch)
    return {
        "cell": space.compact(arch),
        "scores": scores,
        "channels": space.channels,
        "params": space.params(arch),
        "macs": space.macs(arch, image_size=size),
        "skips": used["skip_connect"],
        "pools": used["max_pool_3x3"] + used["avg_pool_3x3"],
    }


def _width(space: DARTSCNN, arch: Architecture, params: float) -> int:
    """Channels with which ``arch`` comes nearest to so many parameters."""
    sizes = {
        width: DARTSCNN(channels=width, num_cells=space.num_cells).params(arch)
        for width in range(1, 4 * space.channels)
    }
    return min(sizes, key=lambda width: abs(sizes[width] - params))


# ---- WikiText-2 --------------------------------------------------------------------------------------------


def text(folder: Path, setting: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Search, and train what was found and random cells alone."""
    data, network, searched, trained = (setting[key] for key in ("data", "network", "search", "alone"))
    space, dropout = DARTSRNN(nodes=network["nodes"], features=network["features"]), network["dropout"]
    words = read_words(folder / "wikitext2_valid.txt.gz")[: data["words"]]
    known = Vocabulary(words, data["vocabulary"])
    tokens, held = (
        torch.from_numpy(known.encode(part))
        for part in (words, read_words(folder / "wikitext2_test.txt.gz")[: data["test"]])
    )
    cut = round((1 - data["alpha_share"]) * len(tokens))
    training, validation = tokens[:cut], tokens[cut:]

    def search(warm_up: float, seed: int) -> str:
        schedule = TextSchedule(
            searched["epochs"],
            searched["batch_size"],
            searched["steps"],
            searched["rate"],
            alpha_learning_rate=searched["alpha_rate"],
            alpha_warm_up=warm_up,
        )
        model = initial_language_model(
            training, len(known), space.features, nodes=space.nodes, dropout=dropout, seed=seed
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            train_language_model(model, training, validation, schedule)
        return space.compact(space.parse(model.genotype()))

    schedule = TextSchedule(trained["epochs"], trained["batch_size"], trained["steps"], trained["rate"])

    def alone(title: str, archs: Sequence[Architecture]) -> list[dict[str, Any]]:
        rows = []
        for arch in archs:
            scores = [
                once(
                    work,
                    "text alone",
                    [data, network, trained, arch.decisions, seed],
                    partial(
                        train_cell_alone,
                        space.genotype(arch),
                        training,
                        (validation, held),
                        len(known),
                        schedule,
                        features=space.features,
                        dropout=dropout,
                        seed=seed,
                    ),
                )
                for seed in range(setting["repeats"])
            ]
            rows.append(
                {
                    "cell": space.compact(arch),
                    "validation": [pair[0] for pair in scores],
                    "scores": [pair[1] for pair in scores],
                    "depth": _depth(space, arch),
                    "activations": dict(Counter(name for name, _ in space.genotype(arch).recurrent)),
                }
            )
            print(f"{title}: {scores[0][1]:.1f} {rows[-1]['cell']}", flush=True)
        return rows

    found: dict[str, Any] = {}
    for name, rows in searches("text", setting, work, search).items():
        found[name] = {
            "cells": alone(name, [space.parse(row["cell"]) for row in rows]),
            "search_seconds": [row["seconds"] for row in rows],
        }
    return {
        "setting": dict(setting),
        "unigram": unigram_perplexity(training.numpy(), held.numpy(), len(known)),
        "params": space.params(space.sample(random.Random(0)), len(known)),
        "found": found,
        "random": alone("random", draw(space, setting["random"])),
    }


def _depth(space: DARTSRNN, arch: Architecture) -> int:
    """Nodes on the longest way from the cell's first state."""
    depths = [0]
    for _, source in space.cell(arch):
        depths.append(depths[source] + 1)
    return max(depths)


HALVES: dict[str, Callable[[Path, Mapping[str, Any], Path], dict[str, Any]]] = {
    "cifar10": cifar10,
    "text": text,
}


def main() -> None:
    """Measure, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10 and WikiText-2")
    parser.add_argument("--only", choices=tuple(HALVES), help="one of the two; both by default")
    parser.add_argument("--tiny", action="store_true", help="seconds; keeps no record")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    settings = TINY if chosen.tiny else FULL
    done = {}
    for name in [chosen.only] if chosen.only else HALVES:
        done[name] = HALVES[name](chosen.data, settings[name], WORK / "darts-genotypes")
        done[name]["threads"] = torch.get_num_threads()
        if not chosen.tiny:  # the other half may have been written meanwhile
            there = json.loads(RECORD.read_text()) if RECORD.exists() else {}
            write(RECORD, there | {name: done[name]})
    print("\n".join(section(done)))


if __name__ == "__main__":
    main()
