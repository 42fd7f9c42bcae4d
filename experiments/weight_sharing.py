"""How much weight sharing helps: supernets of five spaces beside training alone, on real images and text.

    python experiments/weight_sharing.py --data FOLDER                     # all five
    python experiments/weight_sharing.py --data FOLDER --only darts_cnn    # one of them
    python experiments/weight_sharing.py --data FOLDER --tiny              # a minute, to see that it runs

The spaces are those of Y. Zhang, Q. Zhang, Y. Yang, "How Does Weight Sharing Help in Neural Architecture
Search?", arXiv:2010.08219, with networks and trainings as small as two cores ask for. What architectures
reach alone is known from tables for NAS-Bench-101 and NAS-Bench-201; of the other spaces 24 are trained.
Supernets of two seeds share weights in three ways: among the whole space, among the evaluated architectures
only, in four groups of these; and among the half of these that the whole space's supernets rank best.
Training images are moved and mirrored at random. Checkpoints and results are kept in build/weight-sharing,
from where a run that was killed goes on; the record benches/results/weight-sharing.json is written anew after
each space, of all that are done. section() makes a part of docs/results.md of it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
from supernet_shifting import images
from torch import Tensor
from weight_sharing_section import section

from pynas.analysis import ACCURACY, Protocol, SharingAnalysis, analyze_sharing
from pynas.analysis.checks import Floats
from pynas.analysis.operations import costs, operation_counts
from pynas.analysis.standalone import ground_truth
from pynas.analysis.study import Sharing, Study
from pynas.analysis.tasks import ImageTask, Task, TextTask
from pynas.architecture import Architecture
from pynas.bench import describe
from pynas.data import CropAndFlip
from pynas.data.text import read_words
from pynas.spaces import DARTSCNN, DARTSRNN, NASBench101, NASBench201, ProxylessNAS, SearchSpace

RECORD = records.RESULTS / "weight-sharing.json"
WORK = records.WORK / "weight-sharing"
SHARINGS = (Sharing(0), Sharing(1), Sharing(4))
PROTOCOL = Protocol(picks=(1, 5), prunings=(0.5,))

Truths = dict[Architecture, float]


@dataclass(frozen=True)
class Setting:
    """How one space is measured.

    Attributes:
        space: With small networks.
        known: Reads what architectures reach from the tables in a folder; None to train them alone.
        architectures: To evaluate.
        steps: Of a supernet.
        alone: Steps of each architecture alone.
        batch: Samples of a step.
        rate: Learning rate; the task's own if None.
        final_rate: Of supernets at the end; the task's own if None. Where it is small, supernets of a few
            thousand images are more accurate and rank worse.
        size: Pixels of images; 0 for text.
        train: Images to train on; words for text.
        held: Images, or words, that all are judged on.
        calibration: Training images for the batch norms of a sub-network.
    """

    space: SearchSpace
    known: Callable[[Path, SearchSpace], Truths] | None
    architectures: int
    steps: int
    alone: int = 0
    batch: int = 32
    rate: float | None = None
    final_rate: float | None = None
    size: int = 8
    train: int = 4000
    held: int = 2000
    calibration: int = 256


def nasbench201(folder: Path, space: SearchSpace) -> Truths:
    """Test accuracy after 200 epochs."""
    with np.load(folder / "nb201_accuracy.npz", allow_pickle=False) as file:
        pairs = zip(file["arch_str"], file["test200_cifar10"], strict=True)
        return {space.parse(bytes(text).decode()): float(value) for text, value in pairs}


def nasbench101(folder: Path, space: SearchSpace) -> Truths:
    """Validation accuracy after 108 epochs.

    Of cells in the order of vertices that sampling, so training, knows.
    """
    assert isinstance(space, NASBench101)
    with np.load(folder / "nb101_sample15k.npz", allow_pickle=False) as file:
        chosen = np.random.default_rng(0).permutation(len(file["hash"]))[:1000]
        columns = [file[key][chosen] for key in ("num_vertices", "adjacency", "ops", "val_acc_108ep")]
    found = {}
    for vertices, matrix, ops, value in zip(*columns, strict=True):
        arch = space.from_matrix(matrix[:vertices, :vertices], ops[:vertices].tolist())
        found[space.canonical(arch)] = 100 * float(value)
    return found


SETTINGS = {
    "nasbench101": Setting(
        NASBench101(channels=16, num_cells=1), nasbench101, 48, steps=2500, batch=64, rate=0.2, final_rate=0.1
    ),
    "nasbench201": Setting(
        NASBench201(channels=16, num_cells=1), nasbench201, 48, steps=6000, batch=64, rate=0.2, final_rate=0.1
    ),
    "darts_cnn": Setting(
        DARTSCNN(channels=8, num_cells=5), None, 24, steps=600, alone=250, batch=64, rate=0.1, size=12
    ),
    "darts_rnn": Setting(
        DARTSRNN(
            features=48, dropout=0.1, dropout_embedding=0.0, dropout_input=0.1, dropout_hidden=0.0,
            dropout_word=0.0,
        ),
        None, 24, steps=1500, alone=300, size=0, train=60_000, held=24_000,
    ),
    "proxylessnas": Setting(
        ProxylessNAS(widths="8-8-16-16-32-32", stem_channels=8, first_channels=8, last_channels=64),
        None, 24, steps=400, alone=300, batch=64, rate=0.2, size=16,
    ),
}  # fmt: skip
STEPS_OF_WORDS, VOCABULARY, SEEDS, CHECKPOINTS, REPEATS = 8, 1000, 2, 2, 2


def tiny(setting: Setting) -> Setting:
    """Of a setting one that ends in seconds."""
    smaller = replace(setting, architectures=6, steps=4, alone=2 if setting.alone else 0, batch=8)
    return replace(smaller, train=64 if setting.size else 2000, held=64 if setting.size else 1000)


def task_of(folder: Path, setting: Setting) -> Task:
    """Images of CIFAR-10, its training set and its test set; or the words of WikiText-2."""
    if not setting.size:
        words = read_words(folder / "wikitext2_valid.txt.gz")[: setting.train + setting.held]
        share = setting.held / len(words)
        return TextTask.split(words, share, steps=STEPS_OF_WORDS, vocabulary=VOCABULARY, name="WikiText-2")
    parts: list[Tensor] = []
    for name, count in (("cifar10_train_4k", setting.train), ("cifar10_test_2k", setting.held)):
        with np.load(folder / f"{name}.npz") as file:
            parts += [images(file["images"][:count], setting.size), torch.from_numpy(file["labels"][:count])]
    return ImageTask(*parts, 10, "CIFAR-10", CropAndFlip(setting.size // 8))


def architectures_of(setting: Setting, known: Truths | None) -> tuple[Architecture, ...]:
    """Drawn uniformly, no two of them one network; of those that a table knows."""
    rng = random.Random(0)
    if known is not None:
        return tuple(rng.sample(list(known), setting.architectures))
    found: dict[Architecture, Architecture] = {}
    while len(found) < setting.architectures:
        arch = setting.space.sample(rng)
        found.setdefault(setting.space.canonical(arch), arch)
    return tuple(found.values())


def measure(name: str, setting: Setting, data: Path, folder: Path) -> dict[str, Any]:
    """One space: supernets in every setting, the truth, and what an analysis makes of both."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    space, task = setting.space, task_of(data, setting)
    known = None if setting.known is None else setting.known(data, space)
    architectures = architectures_of(setting, known)
    options = replace(task.training, steps=setting.steps, batch_size=setting.batch)
    options = options if setting.rate is None else replace(options, learning_rate=setting.rate)
    shared = replace(options, final_learning_rate=setting.final_rate or options.final_learning_rate)
    if known is None:
        alone = replace(options, steps=setting.alone)
        truth = ground_truth(space, architectures, task, alone, repeats=REPEATS, cache=folder / "alone.jsonl")
        _say(f"{name}: trained alone, {task.show(truth.min())} to {task.show(truth.max())}", started)
    else:
        truth = np.array([known[arch] for arch in architectures])
    study = Study(
        space,
        architectures,
        task,
        shared,
        folder,
        seeds=SEEDS,
        checkpoints=CHECKPOINTS,
        checkpoint_every=max(1, setting.steps // 10),
        calibration=setting.calibration,
    )
    estimates = {}
    for sharing in SHARINGS:
        estimates[sharing.name] = study.estimates(sharing)["recalibrated"]
        _say(f"{name}: {sharing.name}", started)
    kept = _better_half(estimates[Sharing(0).name])
    (folder / "pruned").mkdir(exist_ok=True)
    survivors = replace(study, architectures=tuple(architectures[i] for i in kept), folder=folder / "pruned")
    again = survivors.estimates(Sharing(1))["recalibrated"]
    _say(f"{name}: pruned", started)
    quality = task.quality if known is None else ACCURACY
    found = analyze_sharing(
        estimates,
        truth,
        operations=operation_counts(space, architectures),
        costs=costs(space, architectures, lambda arch: task.params(space, arch)),
        labels=[space.format(arch) for arch in architectures],
        protocol=PROTOCOL,
        quality=quality,
    )
    of_kept = analyze_sharing({"pruned": again}, truth[..., kept], protocol=PROTOCOL, quality=quality)
    return {
        "space": name,
        "truth": f"mean of {REPEATS} times {setting.alone} steps alone"
        if known is None
        else _first_line(setting.known),
        "estimates_are": task.quality.unit,
        "steps": setting.steps,
        "batch": setting.batch,
        "samples": [len(task.inputs), len(task.validation_inputs)],
        "seconds": time.perf_counter() - started,
        "machine": describe(),
        "analysis": found.to_dict(),
        "picked_after_pruning": _picked(of_kept, 0),
        "picked_before": _picked(found, SHARINGS.index(Sharing(1))),
    }


def _better_half(estimates: Floats) -> list[int]:
    """Positions of the architectures that the last checkpoints rank best, means over seeds."""
    means = estimates[:, -1].mean(axis=0)
    return sorted(np.argsort(-means, kind="stable")[: (len(means) + 1) // 2].tolist())


def _picked(found: SharingAnalysis, setting: int) -> dict[str, float]:
    """By number of picks, the truth that the best of them is expected to have."""
    best = float(np.max(found.truth))
    return {str(pick.count): best - pick.regret for pick in found.settings[setting].picks}


def _first_line(function: Any) -> str:
    return str(function.__doc__).splitlines()[0].rstrip(".").lower()


def _say(text: str, started: float) -> None:
    print(f"{text} ({time.perf_counter() - started:.0f} s)", flush=True)


def run(names: Sequence[str], data: Path, folder: Path, *, is_tiny: bool) -> dict[str, Any]:
    """Measure spaces; the record is of these and all that the folder holds already."""
    for name in names:
        setting = tiny(SETTINGS[name]) if is_tiny else SETTINGS[name]
        records.write(folder / f"{name}.json", measure(name, setting, data, folder / name))
    paths = [folder / f"{name}.json" for name in SETTINGS]
    return {"seeds": SEEDS, "spaces": [json.loads(path.read_text()) for path in paths if path.exists()]}


def main() -> None:
    """Measure, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of CIFAR-10, WikiText-2 and the tables"
    )
    parser.add_argument("--only", choices=SETTINGS, action="append", help="this space; may be given again")
    parser.add_argument("--tiny", action="store_true", help="a minute; keeps no record")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    names = chosen.only or list(SETTINGS)
    if chosen.tiny:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(section(run(names, chosen.data, Path(folder), is_tiny=True))))
        return
    for name in names:
        record = run([name], chosen.data, WORK, is_tiny=False)
        records.write(RECORD, record)
    print("\n".join(section(record)))


if __name__ == "__main__":
    main()
