"""Every format of files that pynas reads: how a small valid one is made, and what reads it.

A new reader gets a :class:`~tests.damage.Format` here; ``tests/test_damaged_files.py`` and ``make evidence``
pick it up.
"""

from __future__ import annotations

import gzip
import json
import math
import pickle
import random
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from official_layouts import (
    hw_file,
    nasbench101_record,
    nats_folder,
    tfrecord,
    transnas_file,
    whole_file,
    write_bz2,
)
from PIL import Image
from safetensors.torch import save_file

from pynas import spaces
from pynas._io import weights
from pynas.analysis import standalone
from pynas.analysis.study import Study
from pynas.architecture import Architecture
from pynas.embedding import Arch2Vec
from pynas.hardware import LatencyTable
from pynas.hardware._fit import Correction
from pynas.hardware._timings import Measured, OperatorTiming
from pynas.spaces import NASBench101, template
from pynas.store import RunConfig, Store
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from pynas.tables import _compact, conversion
from pynas.testing.fuzz._readers import IMAGE_SUFFIXES, READERS, SPACE, STEP, Judged
from pynas.trial import Evaluation, Status, Trial
from tests.damage import STRANGE, Format, same


def cells(count: int) -> list[Architecture]:
    return [SPACE.sample(random.Random(i)) for i in range(count)]


def strings(count: int) -> list[str]:
    return [SPACE.format(arch) for arch in cells(count)]


# ---- tensors -----------------------------------------------------------------------------------------

TENSORS = {
    "weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "none": torch.empty(0, 7),
    "step": torch.tensor(3),
}


def write_checkpoint(path: Path) -> None:
    record = {"restarts": 1, "training": {"seed": 0, "options": {"epochs": 2, "clip": None}}}
    CheckpointFolder(path.parent).save(Checkpoint(STEP, TENSORS, record))


# ---- latencies ---------------------------------------------------------------------------------------


def latency_table(complete: bool = True) -> LatencyTable:
    """A table as a build writes it."""
    settings = {
        "task": {"num_classes": 10, "in_channels": 3, "image_size": 32, "batch": 1, "prune": True},
        "device": "cpu",
        "dtype": "float32",
        "channels_last": False,
        "threads": 1,
        "rounds": 2,
        "seconds": 0.02,
        "seed": 0,
        "fit_networks": 3,
        "held_out": 1,
    }
    machine = {"device": "a processor", "versions": {"torch": "2.10.0"}, "date": "2026-01-01"}
    table = LatencyTable(SPACE, "laptop", settings, machine)
    done = 2 if complete else 1
    for i in range(6):
        rounds = [(0.1 * (i + 1), 0.09 * (i + 1), 0.11 * (i + 1), 5 + i)] * done
        table.operators[f"Conv2d({i}, 4, kernel_size=(3, 3)) [1, {i}, 8, 8]"] = OperatorTiming(rounds)
    for i, arch in enumerate(cells(4)):
        table.networks[arch] = Measured("fit" if i < 3 else "held out", [1.5 + i] * done)
    table.correction = Correction(1.25, 0.002, 0.0) if complete else Correction()
    table.complete = complete
    return table


def write_tabular(path: Path) -> None:
    numbers = np.arange(1.0, 31.0)
    named = {"cifar10/raspi4_latency": numbers, "cifar10/a_energy": numbers}
    np.savez_compressed(path, arch_str=np.array(strings(30)), **named)


# ---- spaces ------------------------------------------------------------------------------------------


def write_template(path: Path) -> None:
    template.save(template.example().rename_layer(2, "die mittlere Schicht, größer"), path)


# ---- tables of accuracies ----------------------------------------------------------------------------


def write_whole(path: Path) -> None:
    """NATS-Bench, topology, in one file."""
    write_bz2(path, whole_file(strings(3), [0, 1, 2], {"12": 2, "200": 2}))


def write_nats_folder(path: Path) -> None:
    """The same in a folder, of which one file is damaged."""
    path.parent.rmdir()
    nats_folder(path.parent, strings(3), [0, 1, 2], {"12": 2, "200": 2})


def write_hw(path: Path) -> None:
    path.write_bytes(pickle.dumps(hw_file(strings(4))))


def write_transnas(path: Path, zipped: bool) -> None:
    archs = []
    for name in ("transnas_micro", "transnas_macro"):
        space = spaces.get(name)
        archs.append([space.format(space.sample(random.Random(i))) for i in range(2)])
    torch.save(transnas_file(*archs, epochs=2), path, _use_new_zipfile_serialization=zipped)


def write_tfrecord(path: Path) -> None:
    space, records = NASBench101(), []
    for seed in range(4):
        arch = space.sample(random.Random(seed))
        matrix, operations = space.matrix(arch)
        cell = [[int(entry) for entry in row] for row in matrix], list(operations)
        for run in range(3):
            numbers = (100.0 + run, 0.99, 0.9 - run / 100, 0.89)
            records.append(nasbench101_record(space.hash(arch), 108, *cell, numbers, 1000 + seed))
    path.write_bytes(tfrecord(records))


def begins(found: Any, whole: Any) -> bool:
    """Each record has a sum, the file has none: cut between two it has fewer runs, which show as NaN."""
    rows = len(found[1]["hash"])
    per_row = {key: array[:rows] for key, array in whole[1].items() if key != "op_names"}
    known = {key: np.where(np.isnan(array), array, whole[2][key][:rows]) for key, array in found[2].items()}
    names = per_row | {"op_names": whole[1]["op_names"]}
    return found[0] == whole[0] and same(dict(found[1]), names) and same(dict(found[2]), known)


def write_compact(path: Path, source: Callable[[Path], None], name: str) -> None:
    made = path.with_name(name)
    source(made)
    _compact.write(path, conversion.read(made, lambda share: None))
    made.unlink()


def write_npz_table(path: Path) -> None:
    np.savez(path, arch_str=np.array(strings(30)), test200_cifar10=np.linspace(10, 95, 30))


def write_analog(path: Path) -> None:
    """The package's pickle, which names its own class."""
    module = types.ModuleType("analognasbench.data")
    record = module.Architecture = type("Architecture", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    content = {}
    for i in range(12):
        content[tuple(i // 5**k % 5 for k in range(6))] = made = record()
        made.baseline_accuracy = 50.0 + i
    replaced = {"analognasbench": types.ModuleType("analognasbench"), module.__name__: module}
    with mock.patch.dict(sys.modules, replaced):
        path.write_bytes(pickle.dumps(content))


# ---- images and text ---------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
CIFAR = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)


def write_cifar(path: Path) -> None:
    content = {b"batch_label": b"one", b"labels": [3, 9], b"data": CIFAR, b"filenames": [b"a", b"b"]}
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar_binary(path: Path) -> None:
    path.write_bytes(
        b"".join(bytes([label]) + row.tobytes() for label, row in zip((3, 9), CIFAR, strict=True))
    )


def write_image(path: Path) -> None:
    Image.fromarray(PIXELS[0]).resize((16, 16)).save(path)


def write_npz_images(path: Path) -> None:
    np.savez_compressed(path, images=PIXELS, labels=np.array([0, 1, 1, 0]), class_names=np.array(["a", "b"]))


TEXT = "".join(f"{'word ' * (i % 7)}naïve {i} ﬁsh\n" for i in range(60)).encode()

# ---- what pynas keeps --------------------------------------------------------------------------------


def write_store(path: Path) -> None:
    config = RunConfig(SPACE.name, "random", 0, ("zico",), {"flops": 1e8}, {"batch": 4})
    with Store(path) as store:
        run = store.start(config, {"versions": {"torch": "2.10.0"}})
        for number, arch in enumerate(cells(12)):
            evaluation = Evaluation(Status.OK, {"zico": 1.5 * number}, {"params": 1e6}, "", 0.25)
            store.append(run, Trial(number, arch, evaluation), {"seen": number, "rng": [1, 2, None]})


def write_trained(path: Path) -> None:
    cache = standalone._Cache(path)
    for number, value in enumerate((90.5, 100.0, 0.0, math.inf, math.nan)):
        cache.add(json.dumps({"task": "digits", "decisions": [number, 1]}), value)
    assert known(cache._known, standalone._Cache(path)._known), "it does not come back"


def known(found: Any, whole: Any) -> bool:
    return same(found, {key: whole[key] for key in found if key in whole})


def write_estimates(path: Path) -> None:
    Study._write(cast(Study, Judged()), path.parent, 10, "running", [91.25, 88.5])


# ---- all of them -------------------------------------------------------------------------------------


def form(name: str, write: Callable[[Path], object], **options: Any) -> Format:
    reader = READERS[name]
    return Format(name, write, reader.read, reader.filename, **options)


def summed(name: str, write: Callable[[Path], object], **options: Any) -> Format:
    """Of a format with a sum over its content, be it one of each array in an archive."""
    return form(name, write, **{"checked": same, **options})


FORMATS = (
    summed("weights", lambda path: weights.save(path, TENSORS, {"space": "toy"})),
    form("weights-from-elsewhere", lambda path: save_file(TENSORS, path)),
    summed("checkpoint", write_checkpoint),
    summed("embedding", lambda path: Arch2Vec(SPACE).save(path)),
    summed("latency-table", lambda path: latency_table().save(path)),
    summed("unfinished-latency-table", lambda path: latency_table(False).save(path)),
    summed("measured-latencies", write_tabular),
    summed("nats-file", write_whole),
    summed(
        "nats-folder",
        write_nats_folder,
        strange=("empty", "sparse", "unreadable"),  # an architecture whose file is absent was not trained
    ),
    form("hw-pickle", write_hw),
    summed("transnas-file", partial(write_transnas, zipped=True)),
    form("transnas-file-before-torch-1.6", partial(write_transnas, zipped=False)),
    summed("nasbench101-records", write_tfrecord, checked=begins),
    summed("compact-table", partial(write_compact, source=write_whole, name="n.pickle.pbz2")),
    summed("compact-table-of-nasbench101", partial(write_compact, source=write_tfrecord, name="n.tfrecord")),
    summed("accuracies-archive", write_npz_table),
    form("analog-table", write_analog),
    form("cifar10", write_cifar),
    form("cifar10-binary", write_cifar_binary),
    summed("images-archive", write_npz_images),
    *(form(f"image-folder-{suffix}", write_image, strange=STRANGE[1:]) for suffix in IMAGE_SUFFIXES),
    form("template", write_template),
    form("text", lambda path: path.write_bytes(TEXT)),
    summed("compressed-text", lambda path: path.write_bytes(gzip.compress(TEXT))),
    form("store", write_store),
    # What is damaged is left out, and computed anew.
    summed("networks-trained-alone", write_trained, checked=lambda found, whole: known(found, whole)),
    summed("estimates-of-a-study", write_estimates, checked=lambda found, whole: found in (None, whole)),
)
