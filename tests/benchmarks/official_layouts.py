"""Small files laid out as the published ones, written by code that shares nothing with the readers."""

from __future__ import annotations

import base64
import bz2
import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

# ---- NAS-Bench-101 -------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Bit by bit: divide by the Castagnoli polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return ~crc & 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15) + (crc << 17 & 0xFFFFFFFF)
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def tfrecord(records: list[bytes]) -> bytes:
    framed = []
    for record in records:
        length = struct.pack("<Q", len(record))
        framed += [length, masked(length), record, masked(record)]
    return b"".join(framed)


def varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def model_metrics(evaluations: list[tuple[float, ...]], params: int) -> bytes:
    """``ModelMetrics``: evaluations of (epoch, time, train, validation, test accuracy), then the rest."""
    message = b""
    for numbers in evaluations:
        inner = b"".join(bytes([i << 3 | 1]) + struct.pack("<d", n) for i, n in enumerate(numbers, 1))
        inner += bytes([6 << 3 | 2, 4]) + b"ckpt"  # where the checkpoint lay
        message += b"\x0a" + varint(len(inner)) + inner
    return message + b"\x10" + varint(params) + b"\x19" + struct.pack("<d", 1234.5)


def nasbench101_record(
    module_hash: str,
    epochs: int,
    adjacency: list[list[int]],
    operations: list[str],
    final: tuple[float, float, float, float],
    params: int,
) -> bytes:
    """One run; ``final`` is (time, train, validation, test accuracy) after the last epoch."""
    time, train, valid, test = final
    halfway = (epochs / 2, time / 2, train / 2, valid / 2, test / 2)
    metrics = model_metrics([(0, 0, 0.1, 0.1, 0.1), halfway, (epochs, time, train, valid, test)], params)
    matrix = "".join(str(entry) for row in adjacency for entry in row)
    fields = [module_hash, epochs, matrix, ",".join(operations), base64.b64encode(metrics).decode()]
    return json.dumps(fields).encode()


# ---- NAS-Bench-201 and NATS-Bench ------------------------------------------------------------------------

SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def accuracy(index: int, dataset: str, name: str, seed: int, epochs: int, epoch: int) -> float:
    """A number that depends on everything, so that a wrong place shows."""
    place = list(SETS).index(dataset) * 4 + ("train", "x-valid", "x-test", "ori-test").index(name)
    return round(20 + index % 7 + place + seed / 1000 + epochs / 100 + epoch / 1e4, 6)


def training_run(index: int, arch: str, dataset: str, seed: int, epochs: int) -> dict[str, Any]:
    """The state of a ``ResultsCount``."""
    names = SETS[dataset]
    passes = [(f"{name}@{epoch}", name, epoch) for name in names for epoch in range(epochs)]
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {e: accuracy(index, dataset, "train", seed, epochs, e) for e in range(epochs)},
        "train_acc5es": dict.fromkeys(range(epochs), 99.0),
        "train_losses": {e: 2.0 - e / epochs for e in range(epochs)},
        "train_times": OrderedDict((e, 10.0 + index % 3 + e % 2) for e in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10},
        "params": np.float64(0.5 + index / 1e5),  # the authors' counting returns NumPy's numbers
        "flop": 100.25 + index,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.01, 0.03],
        "eval_names": list(names),
        "eval_acc1es": {key: accuracy(index, dataset, n, seed, epochs, e) for key, n, e in passes},
        "eval_times": {key: 2.0 + index % 2 for key, _, _ in passes},
        "eval_losses": {key: 1.0 - e / epochs for key, _, e in passes},
    }


def arch_results(
    index: int, arch: str, epochs: int, seeds: dict[str, tuple[int, ...]] | None = None
) -> dict[str, Any]:
    """The state of an ``ArchResults``."""
    chosen = seeds or dict.fromkeys(SETS, (777, 888))
    return {
        "arch_index": index,
        "arch_str": arch,
        "all_results": {
            (dataset, seed): training_run(index, arch, dataset, seed, epochs)
            for dataset, runs in chosen.items()
            for seed in runs
        },
        "dataset_seed": {dataset: list(runs) for dataset, runs in chosen.items()},
        "clear_net_done": True,
    }


def whole_file(
    archs: list[str], indices: list[int], lengths: dict[str, int], **options: Any
) -> dict[str, Any]:
    """What one file for all architectures holds; ``lengths`` maps the keys ("less", "12") to epochs."""
    return {
        "meta_archs": archs,
        "arch2infos": {
            i: {key: arch_results(i, archs[i], epochs, **options) for key, epochs in lengths.items()}
            for i in indices
        },
        "evaluated_indexes": set(indices),
    }


def nats_folder(
    folder: Path, archs: list[str], indices: list[int], lengths: dict[str, int], **options: Any
) -> Path:
    folder.mkdir()
    write_bz2(folder / "meta.pickle.pbz2", {"meta_archs": archs})
    for i in indices:
        results = {key: arch_results(i, archs[i], epochs, **options) for key, epochs in lengths.items()}
        write_bz2(folder / f"{i:06d}.pickle.pbz2", results)
    return folder


def write_bz2(path: Path, content: Any) -> None:
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))


# ---- TransNAS-Bench-101 ----------------------------------------------------------------------------------

TASKS = {
    "class_scene": ("top1", "top5", "loss"),
    "class_object": ("top1", "top5", "loss"),
    "room_layout": ("loss", "neg_loss"),
    "jigsaw": ("top1", "top5", "loss"),
    "segmentsemantic": ("acc", "mIoU", "loss"),
    "normal": ("ssim", "l1_loss"),
    "autoencoder": ("ssim", "l1_loss"),
}


def transnas_file(micro: list[str], macro: list[str], epochs: int = 5) -> dict[str, Any]:
    def curve(row: int, place: int) -> list[float]:
        # Rises, then falls by a little: the last epoch is neither the best nor the first.
        return [10.0 * place + row / 10 + (e if e < epochs - 1 else e - 1.5) for e in range(epochs)]

    def result(row: int, task: str) -> dict[str, Any]:
        names = [f"{split}_{name}" for split in ("train", "valid", "test") for name in TASKS[task]]
        metrics = {name: curve(row, place) for place, name in enumerate(names)}
        return {
            "total_epochs": epochs,
            "model_info": {"inference_time": 0.25, "encoder_params": 1000 + row, "encoder_FLOPs": 3.5e9},
            "metrics": {**metrics, "time_elapsed": [60.0 * (e + 1) for e in range(epochs)]},
        }

    def space(archs: list[str], first: int) -> dict[str, Any]:
        return {arch: {task: result(first + i, task) for task in TASKS} for i, arch in enumerate(archs)}

    return {
        "metrics_dict": {task: [*names, "time_elapsed"] for task, names in TASKS.items()},
        "info_names": ["inference_time", "encoder_params", "encoder_FLOPs"],
        "task_list": list(TASKS),
        "data": {"macro": space(macro, 0), "micro": space(micro, 100)},
    }


# ---- HW-NAS-Bench ----------------------------------------------------------------------------------------

COSTS = (
    "edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency", "pixel3_latency",
    "eyeriss_latency", "eyeriss_energy", "fpga_latency", "fpga_energy",
)  # fmt: skip


def hw_file(archs: list[str]) -> dict[str, Any]:
    def dataset(name: str, place: int) -> dict[str, Any]:
        costs: dict[str, Any] = {
            cost: [np.float64(100 * place + 10 * k + i / 10 + 1) for i in range(len(archs))]
            for k, cost in enumerate(COSTS)
        }
        costs["edgetpu_latency"][1] = -1
        config = [
            {"name": "infer.tiny", "C": 16, "N": 5, "arch_str": a, "num_classes": 10, "dataset": name}
            for a in archs
        ]
        return {**costs, "config": config}

    names = ("cifar10", "cifar100", "ImageNet16-120")
    return {
        "nasbench201": {name: dataset(name, place) for place, name in enumerate(names)},
        "fbnet": {"edgegpu_latency": {"FC_Cin1504_Cout100": 0.1}},
    }
