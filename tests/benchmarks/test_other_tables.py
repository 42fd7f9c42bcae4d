"""TransNAS-Bench-101, HW-NAS-Bench, archives of other people, and compact files that are damaged."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_layouts import COSTS, TASKS, hw_file, transnas_file

from pynas import spaces, tables
from pynas._errors import UserError
from pynas.hardware import TabularLatency
from pynas.spaces import NASBench201

TOPOLOGY = NASBench201()
ARCHS = [TOPOLOGY.format(TOPOLOGY.from_index(i)) for i in range(20)]


def sampled(name: str, count: int) -> list[str]:
    space, rng = spaces.get(name), random.Random(0)
    return list({space.format(space.sample(rng)): None for _ in range(4 * count)})[:count]


# ---- TransNAS-Bench-101 --------------------------------------------------------------------------------

MICRO, MACRO = sampled("transnas_micro", 7), sampled("transnas_macro", 5)


@pytest.fixture(scope="module", params=["zip", "legacy"])
def transnas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transnas")
    source = folder / "transnas-bench_v10141024.pth"
    torch.save(transnas_file(MICRO, MACRO), source, _use_new_zipfile_serialization=request.param == "zip")
    tables.convert(source, folder / "transnas.npz")
    return folder / "transnas.npz"


@pytest.mark.parametrize(
    ("name", "archs", "first"), [("transnas_micro", MICRO, 100), ("transnas_macro", MACRO, 0)]
)
def test_every_task_comes_back(transnas: Path, name: str, archs: list[str], first: int) -> None:
    benchmark = tables.open(transnas, name)
    assert len(benchmark) == len(archs)
    assert set(benchmark.datasets) == set(TASKS)
    for i, text in enumerate(archs):
        arch = benchmark.space.parse(text)
        for task, metrics in TASKS.items():
            names = [f"{split}_{metric}" for split in ("train", "valid", "test") for metric in metrics]
            for place, metric in enumerate(names):
                base = 10.0 * place + (first + i) / 10
                assert benchmark.query(arch, metric, dataset=task) == base + 2.5
                assert benchmark.query(arch, f"{metric}@5", dataset=task) == base + 2.5
                if not metric.endswith("loss") or metric.endswith("neg_loss"):
                    assert benchmark.query(arch, f"best_{metric}", dataset=task) == base + 3
                assert benchmark.query(arch, f"early_{metric}", dataset=task) == base + 3
            assert benchmark.cost(arch, dataset=task) == 300
            assert benchmark.query(arch, "encoder_params", dataset=task) == 1000 + first + i


def test_a_task_is_judged_by_its_own_metric(transnas: Path) -> None:
    benchmark = tables.open(transnas, "transnas_macro")
    judged = {task: benchmark.resolve("test_score", task).metric for task in TASKS}
    assert judged == {
        "class_scene": "test_top1",
        "class_object": "test_top1",
        "room_layout": "test_neg_loss",
        "jigsaw": "test_top1",
        "segmentsemantic": "test_mIoU",
        "normal": "test_ssim",
        "autoencoder": "test_ssim",
    }
    assert benchmark.resolve("best_valid_score", "jigsaw").metric == "best_valid_top1"
    assert benchmark.resolve().key == "class_scene/test_top1@5"
    assert benchmark.resolve("test_l1_loss", "normal").higher_is_better is False
    assert benchmark.resolve("test_neg_loss", "room_layout").higher_is_better is True
    normals = tables.open(transnas, spaces.get("transnas_micro", task="normal"))
    assert normals.resolve().key == "normal/test_ssim@5"
    table = tables.load(f"transnas:{transnas}", "transnas_macro", "valid_ssim", dataset="normal")
    assert [benchmark.space.format(arch) for arch in table.architectures()] == MACRO
    assert table.best() == (benchmark.space.parse(MACRO[-1]), 22.9)
    assert len(benchmark.missing(dataset="jigsaw")) == 0


def test_a_file_of_two_spaces_asks_for_one(transnas: Path) -> None:
    with pytest.raises(UserError, match="give its space: transnas_micro, transnas_macro"):
        tables.open(transnas)
    with pytest.raises(UserError, match="not of nasbench201"):
        tables.open(transnas, "nasbench201")


def test_a_file_without_one_of_the_spaces(tmp_path: Path) -> None:
    torch.save(transnas_file(MICRO, []), tmp_path / "a.pth")
    tables.convert(tmp_path / "a.pth", tmp_path / "a.npz")
    assert len(tables.open(tmp_path / "a.npz", "transnas_micro")) == len(MICRO)
    with pytest.raises(UserError, match="holds no architecture of transnas_macro"):
        tables.open(tmp_path / "a.npz", "transnas_macro")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"nano": {}}}, "data has not the keys micro and macro"),
        ({"data": 3}, "not laid out as TransNAS-Bench-101"),
        ({"data": {"micro": {"a": {"jigsaw": {}}}}}, "not laid out as TransNAS-Bench-101"),
        ({"data": {"micro": {}}}, "holds no result"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    torch.save(transnas_file([], []) | change, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        tables.convert(tmp_path / "a.pth", tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


# ---- HW-NAS-Bench ----------------------------------------------------------------------------------------


def convert_hw(folder: Path, content: Any) -> Path:
    (folder / "HW-NAS-Bench-v1_0.pickle").write_bytes(pickle.dumps(content))
    tables.convert(folder / "HW-NAS-Bench-v1_0.pickle", folder / "hw.npz", overwrite=True)
    return folder / "hw.npz"


def test_every_cost_comes_back(tmp_path: Path) -> None:
    path = convert_hw(tmp_path, hw_file(ARCHS))
    benchmark = tables.open(path)
    assert set(benchmark.metrics("cifar100")) == set(COSTS)
    for place, dataset in enumerate(("cifar10", "cifar100", "ImageNet16-120")):
        for k, cost in enumerate(COSTS):
            for i in (0, 2, 19):
                found = benchmark.query(TOPOLOGY.from_index(i), cost, dataset=dataset)
                assert found == pytest.approx(100 * place + 10 * k + i / 10 + 1)
    table = tables.load(f"hw:{path}#raspi4_latency", TOPOLOGY, dataset="imagenet16")
    assert (table.unit, table.best()[0]) == ("ms", TOPOLOGY.from_index(0))
    assert tables.load(f"hw:{path}#fpga_energy", TOPOLOGY).unit == "mJ"
    # The hardware models read the same file.
    (model,) = TabularLatency.read(convert_hw(tmp_path, hw_file(ARCHS)), TOPOLOGY, "cifar100/raspi4")
    third = TOPOLOGY.from_index(2)
    assert model.predict(third) == benchmark.query(third, "raspi4_latency", dataset="cifar100")
    # A negative number says that the device cannot run the network.
    assert benchmark.query(TOPOLOGY.from_index(1), "edgetpu_latency") is None
    assert benchmark.missing("edgetpu_latency") == [TOPOLOGY.from_index(1)]
    with pytest.raises(UserError, match=r"give a metric .*; it has: edgegpu_energy, edgegpu_latency"):
        benchmark.table()


def test_order_and_damage_of_costs(tmp_path: Path) -> None:
    content = hw_file(ARCHS)
    content["nasbench201"]["cifar100"]["config"].reverse()
    with pytest.raises(UserError, match="lists other architectures than the data sets before"):
        convert_hw(tmp_path, content)
    content = hw_file(ARCHS)
    content["nasbench201"]["cifar10"]["fpga_energy"].pop()
    with pytest.raises(UserError, match="columns of shapes"):
        convert_hw(tmp_path, content)
    content = hw_file(ARCHS)
    for metrics in content["nasbench201"].values():
        del metrics["config"]
    with pytest.raises(UserError, match="20 numbers for 0 architectures"):
        convert_hw(tmp_path, content)
    with pytest.raises(UserError, match="not laid out as HW-NAS-Bench"):
        convert_hw(tmp_path, {"nasbench201": 3})


def test_without_names_the_order_is_the_official_one(tmp_path: Path) -> None:
    numbers = np.arange(15_625.0) + 1
    path = convert_hw(tmp_path, {"nasbench201": {"cifar10": {"raspi4_latency": numbers}}})
    table = tables.load(f"hw:{path}#raspi4_latency", TOPOLOGY)
    assert [table.accuracy(TOPOLOGY.from_index(i)) for i in (0, 77, 15_624)] == [1, 78, 15_625]


# ---- archives of other people ----------------------------------------------------------------------------


def test_names_of_arrays_say_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(
        path,
        arch_str=np.array(ARCHS[:3]),
        test200_cifar10=[90.0, 91.0, np.nan],
        val12_cifar100=[50.0, 51.0, 52.0],
        test200_cifar10_per_seed=[[90.0, np.nan], [90.5, 91.5], [np.nan, np.nan]],
        params_m_cifar10=[0.5, 0.25, 1.0],
        macs_m_cifar10=[10.0, 20.0, 30.0],
        my_metric=[1, 2, 3],
        other=np.ones((3, 2, 2)),
        **{"svhn/test_accuracy@40": [80.0, 81.0, 82.0]},
    )
    benchmark = tables.open(path, TOPOLOGY)
    first = TOPOLOGY.from_index(0)
    assert benchmark.query(first) == 90
    assert benchmark.query(first, "valid_accuracy", dataset="cifar100", epochs=12) == 50
    assert benchmark.query(first, "test_accuracy_per_seed") == 90
    assert benchmark.query(TOPOLOGY.from_index(1), "test_accuracy_per_seed", seed=1) == 91.5
    assert benchmark.query(first, "params") == 5e5
    assert benchmark.query(first, "flops", epochs=200) == 10e6
    assert benchmark.query(first, "my_metric", dataset="unknown") == 1
    assert benchmark.query(first, "test_accuracy", dataset="svhn") == 80
    assert benchmark.missing() == [TOPOLOGY.from_index(2)]
    assert len(tables.load(f"table:{path}#test_accuracy@200", TOPOLOGY)) == 2
    assert repr(benchmark) == "Benchmark(npz, mine.npz: 3 of nasbench201)"


def test_archives_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"

    def refused(message: str, **arrays: Any) -> None:
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message):
            tables.open(path, TOPOLOGY).table()

    refused("expected an array arch_str", x=[1.0])
    refused("no array with one number per architecture", arch_str=np.array(ARCHS[:2]), x=[1.0])
    refused("row 1 of arch_str: not a nasbench201 architecture", arch_str=["".join(ARCHS[0]), "x"], y=[1, 2])
    refused("stands in the table twice", arch_str=np.array(ARCHS[:1] * 2), y=[1.0, 2.0])
    refused("arch_str is int64", arch_str=[1, 2], y=[1.0, 2.0])
    refused("test_accuracy@12 holds no number", arch_str=np.array(ARCHS[:2]), test12_cifar10=[np.nan] * 2)
    refused("not of nasbench201", hash=np.array(["00" * 16]), val_acc_108ep=[0.5])


def test_cells_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.npz"
    good: dict[str, Any] = {
        "hash": np.array(["0" * 31 + "1", "0" * 31 + "2"], dtype="S32"),
        "adjacency": np.zeros((2, 7, 7), np.int8),
        "ops": np.full((2, 7), -3, np.int8),
        "op_names": np.array(["conv3x3-bn-relu"]),
        "val_acc_108ep": np.array([0.5, 0.75]),
    }

    def refused(message: str, **changes: Any) -> None:
        np.savez(path, **{k: v for k, v in (good | changes).items() if v is not None})
        with pytest.raises(UserError, match=message):
            tables.open(path, "nasbench101")

    refused("needs the arrays ops too", ops=None)
    refused(r"adjacency must be \[N, 7, 7\]", adjacency=np.zeros((2, 6, 6), np.int8))
    refused("indices of op_names", ops=np.full((2, 7), 1, np.int8))
    refused("expected 32 hexadecimal digits", hash=np.array(["xx" * 16, "00" * 16]))
    refused("expected 32 hexadecimal digits", hash=np.array(["00", "00" * 16]))
    refused("the same module hash", hash=np.array(["00" * 16] * 2))


def test_the_published_archives(shared_data: Path) -> None:
    benchmark = tables.open(shared_data / "nb201_accuracy.npz", TOPOLOGY)
    best, accuracy = benchmark.table("test_accuracy", dataset="cifar100", epochs=200).best()
    assert (TOPOLOGY.index(best), round(accuracy, 2)) == (9930, 73.51)
    means = benchmark.values(benchmark.resolve("test_accuracy", "cifar10", 200))
    runs = benchmark.values(benchmark.resolve("test_accuracy_per_seed", "cifar10"))
    with np.load(shared_data / "nb201_accuracy.npz") as archive:
        whole = np.isfinite(archive["test200_cifar10_per_seed"]).all(axis=1)
    assert whole.sum() == 7961  # NAS-Bench-201's file has all three runs of these, NATS-Bench's of all
    assert np.abs(means - runs)[whole].max() < 1e-4
    arch = benchmark.rows.architecture(123)
    assert benchmark.query(arch, "params") == pytest.approx(TOPOLOGY.params(arch))
    hardware = tables.open(shared_data / "nb201_hw.npz", TOPOLOGY)
    assert set(hardware.metrics()) == {
        "edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency", "pixel3_latency",
    }  # fmt: skip
    latencies = tables.load(f"table:{shared_data / 'nb201_hw.npz'}#raspi4_latency", TOPOLOGY)
    with np.load(shared_data / "nb201_hw.npz") as archive:
        np.testing.assert_array_equal(latencies.accuracies(), archive["cifar10/raspi4_latency"])
        unsupported = int((archive["cifar10/edgetpu_latency"] < 0).sum())
    assert len(hardware.missing("edgetpu_latency")) == unsupported > 0


# ---- compact files ---------------------------------------------------------------------------------------


def header(change: Callable[[dict[str, Any]], Any], text: str) -> np.ndarray[Any, Any]:
    content = json.loads(text)
    change(content)
    return np.array(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"pynas_table": np.array("no JSON")}, "its header pynas_table is damaged"),
        (lambda a: a | {"pynas_table": np.array("[]")}, "its header pynas_table is damaged"),
        (
            lambda a: a | {"pynas_table": header(lambda c: c.update(format=2), str(a["pynas_table"]))},
            "a newer pynas may read it",
        ),
        (
            lambda a: a | {"pynas_table": header(lambda c: c.update(family="x"), str(a["pynas_table"]))},
            "a newer pynas may read it",
        ),
        (
            lambda a: (
                a
                | {
                    "pynas_table": header(
                        lambda c: c.update(seeds={"cifar10/fpga_energy": [1, 2]}), str(a["pynas_table"])
                    )
                }
            ),
            r"cifar10/fpga_energy is float64 of shape \[20\], expected numbers of shape \[20, 2\]",
        ),
        (lambda a: a | {"cifar10/fpga_energy": np.ones(3)}, "expected numbers of shape"),
        (lambda a: {k: v for k, v in a.items() if k != "arch_str"}, "nothing names its rows"),
    ],
)
def test_a_damaged_compact_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    path = convert_hw(tmp_path, hw_file(ARCHS))
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(path, **change(arrays))
    with pytest.raises(UserError, match=message):
        tables.open(path)


def test_a_cut_compact_file(tmp_path: Path) -> None:
    path = convert_hw(tmp_path, hw_file(ARCHS))
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"not an \.npz archive|not a readable"):
            tables.open(path)


# ---- writing ---------------------------------------------------------------------------------------------


def test_what_cannot_be_written(tmp_path: Path) -> None:
    source = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    source.write_bytes(pickle.dumps(hw_file(ARCHS)))
    with pytest.raises(UserError, match=r"ends in \.npz"):
        tables.convert(source, tmp_path / "hw.pickle")
    with pytest.raises(UserError, match="does not exist"):
        tables.convert(source, tmp_path / "absent" / "hw.npz")
    with pytest.raises(UserError, match="absent: no such file"):
        tables.convert(tmp_path / "absent", tmp_path / "hw.npz")
    target = tmp_path / "hw.npz"
    tables.convert(source, target)
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        tables.convert(source, target)
    target.unlink()
    target.mkdir()
    with pytest.raises(UserError, match=r"hw\.npz: cannot write"):
        tables.convert(source, target, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "hw.npz"}


def test_an_interrupted_conversion_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "HW-NAS-Bench-v1_0.pickle", tmp_path / "hw.npz"
    source.write_bytes(pickle.dumps(hw_file(ARCHS)))
    target.write_bytes(b"the old file")

    def interrupted(file: Any, **arrays: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tables.convert(source, target, overwrite=True)
    assert target.read_bytes() == b"the old file"
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}
    tables.convert(source, target, overwrite=True)
    assert len(tables.open(target)) == 20
