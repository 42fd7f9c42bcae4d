"""NAS-Bench-201 and NATS-Bench: from files in their layouts to what the official API would answer."""

from __future__ import annotations

import bz2
import itertools
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_layouts import (
    SETS,
    accuracy,
    arch_results,
    nats_folder,
    training_run,
    whole_file,
    write_bz2,
)

from pynas import tables
from pynas._errors import UserError
from pynas._io import files
from pynas._io.pickles import machine as pickle_machine
from pynas._io.pickles import operations as pickle_operations
from pynas.spaces import NASBench201, NATSSize
from pynas.tables.conversion import nats
from pynas.tables.formats import pickle_file
from pynas.tables.formats.stand_ins import ALLOWED_IN_TORCH

TOPOLOGY, SIZE = NASBench201(), NATSSize()
ARCHS = [TOPOLOGY.format(TOPOLOGY.from_index(i)) for i in range(30)]
WIDTHS = [SIZE.format(SIZE.from_index(i)) for i in range(12)]
TRAINED = [0, 3, 7, 29]
# On every data set other seeds, as in the published files.
SEEDS = {
    "cifar10-valid": (777, 888),
    "cifar10": (777, 888, 999),
    "cifar100": (888,),
    "ImageNet16-120": (999, 777),
}
FORMS = ["nats-folder", "nats-whole", "nb201-zip", "nb201-legacy"]


def make(folder: Path, form: str, **changes: Any) -> Path:
    options: dict[str, Any] = {"archs": ARCHS, "indices": TRAINED, "seeds": SEEDS} | changes
    if form == "nats-folder":
        path = folder / "NATS-tss-v1_0-3ffb9-simple"
        return nats_folder(path, lengths={"12": 12, "200": 200}, **options)
    if form == "nats-whole":
        path = folder / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
        write_bz2(path, whole_file(lengths={"12": 12, "200": 200}, **options))
        return path
    path = folder / "NAS-Bench-201-v1_1-096897.pth"
    content = whole_file(lengths={"less": 12, "full": 200}, **options)
    torch.save(content, path, _use_new_zipfile_serialization=form == "nb201-zip")
    return path


def convert(folder: Path, source: Path) -> tables.Benchmark:
    tables.convert(source, folder / "table.npz")
    return tables.open(folder / "table.npz")


@pytest.fixture(scope="module", params=FORMS)
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tables.Benchmark:
    folder = tmp_path_factory.mktemp("nats")
    return convert(folder, make(folder, request.param))


def mean(index: int, dataset: str, name: str, epochs: int) -> float:
    runs = SEEDS[dataset]
    return sum(accuracy(index, dataset, name, seed, epochs, epochs - 1) for seed in runs) / len(runs)


def test_every_accuracy_comes_back(topology: tables.Benchmark) -> None:
    assert len(topology) == 30
    assert topology.datasets == tuple(sorted(SETS))
    for index, epochs, (dataset, sets) in itertools.product(TRAINED, (12, 200), SETS.items()):
        arch = TOPOLOGY.from_index(index)
        for name in ("train", *sets):
            for seed in SEEDS[dataset]:
                found = topology.query(arch, f"{name}_accuracy", dataset=dataset, epochs=epochs, seed=seed)
                assert found == accuracy(index, dataset, name, seed, epochs, epochs - 1)
            found = topology.query(arch, f"{name}_accuracy@{epochs}", dataset=dataset)
            assert found == pytest.approx(mean(index, dataset, name, epochs), rel=1e-12)
        found = topology.query(arch, f"{sets[0]}_loss", dataset=dataset, epochs=epochs)
        assert found == pytest.approx(1 - (epochs - 1) / epochs)
        found = topology.query(arch, "train_time", dataset=dataset, epochs=epochs)
        assert found == pytest.approx(epochs * (10.5 + index % 3))


@pytest.mark.parametrize(
    ("dataset", "metric", "official"),
    [
        ("cifar10", "valid_accuracy", ("cifar10-valid", "x-valid")),
        ("cifar10", "test_accuracy", ("cifar10", "ori-test")),
        ("cifar10", "train_accuracy", ("cifar10", "train")),
        ("cifar10-valid", "valid_accuracy", ("cifar10-valid", "x-valid")),
        ("cifar10-valid", "test_accuracy", ("cifar10-valid", "ori-test")),
        ("cifar100", "val_accuracy", ("cifar100", "x-valid")),
        ("cifar100", "test_accuracy", ("cifar100", "x-test")),
        ("cifar100", "valtest_accuracy", ("cifar100", "ori-test")),
        ("ImageNet16-120", "x-test_accuracy", ("ImageNet16-120", "x-test")),
        ("imagenet16", "test_accuracy", ("ImageNet16-120", "x-test")),
    ],
)
def test_names_mean_what_the_official_api_means(
    topology: tables.Benchmark, dataset: str, metric: str, official: tuple[str, str]
) -> None:
    column = topology.resolve(metric, dataset)
    assert (column.dataset, column.metric, column.epochs) == (official[0], f"{official[1]}_accuracy", 200)


def test_costs(topology: tables.Benchmark) -> None:
    for index in TRAINED:
        arch = TOPOLOGY.from_index(index)
        assert topology.query(arch, "params") == pytest.approx(5e5 + 10 * index)
        assert topology.query(arch, "flops", dataset="cifar100") == pytest.approx((100.25 + index) * 1e6)
        assert topology.query(arch, "latency") == pytest.approx(20)
        # Training on the half of CIFAR-10 that leaves a validation set, and one pass over that set.
        expected = 12 * (10.5 + index % 3) + 2 + index % 2
        for dataset in ("cifar10", "cifar100", "ImageNet16-120"):
            assert topology.cost(arch, dataset=dataset, epochs=12) == pytest.approx(expected)
        assert topology.cost(arch, epochs=12, seed=888) == pytest.approx(expected)


def test_missing_rows_are_explicit(topology: tables.Benchmark) -> None:
    absent = topology.missing("test_accuracy", dataset="cifar100", epochs=12)
    assert [TOPOLOGY.index(arch) for arch in absent] == [i for i in range(30) if i not in TRAINED]
    untrained = TOPOLOGY.from_index(1)
    assert topology.query(untrained) is None
    assert topology.cost(untrained) is None
    assert topology.query(TOPOLOGY.from_index(15_000)) is None  # not among the rows at all
    arch = TOPOLOGY.from_index(0)
    assert topology.query(arch, "test_accuracy", dataset="cifar10", seed=888) is not None
    with pytest.raises(UserError, match="has the runs 888, got 777"):
        topology.query(arch, "test_accuracy", dataset="cifar100", seed=777)


def test_a_table_for_a_search(topology: tables.Benchmark, tmp_path: Path) -> None:
    table = topology.table("test_accuracy", dataset="cifar100", epochs=12)
    assert set(table.values) == set(TRAINED)
    assert (table.metric, table.dataset, table.unit) == ("x-test_accuracy@12", "cifar100", "%")
    expected = {index: mean(index, "cifar100", "x-test", 12) for index in TRAINED}
    assert table.values == pytest.approx(expected)
    assert table.best()[1] == max(table.values.values())
    assert np.flatnonzero(~np.isnan(table.accuracies())).tolist() == TRAINED
    fastest = topology.table("train_time", dataset="cifar100", epochs=12)
    assert fastest.best()[1] == min(fastest.values.values())


def test_unknown_names_are_explained(topology: tables.Benchmark) -> None:
    arch = TOPOLOGY.from_index(0)
    with pytest.raises(UserError, match=r"no dataset 'cifar11' \(did you mean 'cifar10'\?\)"):
        topology.query(arch, dataset="cifar11")
    with pytest.raises(UserError, match=r"no metric 'top1'; it has: .*ori-test_accuracy"):
        topology.query(arch, "top1")
    with pytest.raises(UserError, match="expected epochs 12, 200, got 90"):
        topology.query(arch, "test_accuracy@90")
    with pytest.raises(UserError, match="the metric says 12, the argument 200"):
        topology.query(arch, "test_accuracy@12", epochs=200)
    with pytest.raises(UserError, match="expected NAME@EPOCHS"):
        topology.query(arch, "test_accuracy@twelve")


def test_the_size_space(tmp_path: Path) -> None:
    source = nats_folder(tmp_path / "sss", WIDTHS, [0, 5], {"01": 1, "12": 12, "90": 90})
    benchmark = convert(tmp_path, source)
    assert benchmark.space.name == "nats_size"
    assert benchmark.epochs("test_accuracy") == (1, 12, 90)
    arch = SIZE.from_index(5)
    assert benchmark.resolve().key == "cifar10/ori-test_accuracy@90"
    for epochs in (1, 12, 90):
        found = benchmark.query(arch, "valid_accuracy", epochs=epochs, seed=888)
        assert found == accuracy(5, "cifar10-valid", "x-valid", 888, epochs, epochs - 1)
    with pytest.raises(UserError, match="holds architectures of nats_size, not of nasbench201"):
        tables.load(f"nats:{tmp_path / 'table.npz'}", "nasbench201")
    assert len(tables.load(f"nats:{tmp_path / 'table.npz'}", "nats_size")) == 2
    with pytest.raises(UserError, match="not one for nb201: use table:FILE"):
        tables.load(f"nb201:{tmp_path / 'table.npz'}", "nats_size")


def test_costs_on_which_the_runs_disagree_are_those_of_seed_888(tmp_path: Path) -> None:
    results = arch_results(0, ARCHS[0], 12)
    results["all_results"]["cifar10", 777]["params"] = 0.1
    folder = tmp_path / "folder"
    folder.mkdir()
    write_bz2(folder / "meta.pickle.pbz2", {"meta_archs": ARCHS})
    write_bz2(folder / "0.pickle.pbz2", {"12": results})
    benchmark = convert(tmp_path, folder)
    assert benchmark.query(TOPOLOGY.from_index(0), "params", dataset="cifar10") == pytest.approx(5e5)


class Evil:
    """Unpickled naively, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "NATS"
    folder.mkdir()
    meta, first, target = folder / "meta.pickle.pbz2", folder / "000000.pickle.pbz2", tmp_path / "table.npz"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            tables.convert(folder, target)
        assert not target.exists()

    refused("a folder of no benchmark that pynas knows. What is read: .*NATS-tss-v1_0-3ffb9-simple")
    meta.write_bytes(b"BZh9 nothing")
    refused("meta.pickle.pbz2: not a file of NATS-Bench")
    for content in ({"meta_archs": []}, {"meta_archs": [1]}, {}, [1]):
        write_bz2(meta, content)
        refused("meta_archs: expected a list of architecture strings")
    write_bz2(meta, {"meta_archs": ["|nor_conv~0|"]})
    refused("not a nasbench201 architecture")
    write_bz2(meta, {"meta_archs": ARCHS})
    refused("holds no file 000000.pickle.pbz2 to 000029.pickle.pbz2")
    write_bz2(first, {"12": Evil(tmp_path / "owned")})
    refused(r"000000\.pickle\.pbz2: not a file of NATS-Bench: it names _?io\.open, which has no place")
    assert not (tmp_path / "owned").exists()
    for content in ({"12": {}}, {"12": 3}, [1], {"12": {"all_results": {("cifar10", 777): {}}}}):
        write_bz2(first, content)
        refused("not laid out as NATS-Bench")
    write_bz2(first, {"12": arch_results(1, ARCHS[1], 12)})
    refused("results of .* in the place of")
    whole = bz2.compress(pickle.dumps({"12": arch_results(0, ARCHS[0], 12)}))
    first.write_bytes(whole[: len(whole) // 2])
    refused("not a file of NATS-Bench")
    first.write_bytes(whole)
    tables.convert(folder, target)


@pytest.mark.parametrize("name", ["numpy\ndtype", "numpy.core.multiarray\n_reconstruct", "_codecs\nencode"])
def test_a_pickle_cannot_write_to_what_it_may_name(tmp_path: Path, name: str) -> None:
    # BUILD with a pair as its state sets attributes, also of classes and functions.
    poison = b"\x80\x02c" + name.encode() + b"\nN}X\x04\x00\x00\x00evilK\x01s\x86b."
    (tmp_path / "meta.pickle.pbz2").write_bytes(bz2.compress(poison))
    with pytest.raises(UserError):
        tables.convert(tmp_path, tmp_path / "table.npz")
    (tmp_path / "a.pth").write_bytes(poison)
    with pytest.raises(UserError, match="a state for what has none"):
        tables.convert(tmp_path / "a.pth", tmp_path / "table.npz")
    assert not any(hasattr(stand_in, "evil") for stand_in in ALLOWED_IN_TORCH.values())


@pytest.mark.slow
def test_a_folder_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LEAST", 1 << 20)
    folder = tmp_path / "NATS"
    folder.mkdir()
    (folder / "meta.pickle.pbz2").write_bytes(
        bz2.compress(pickle.dumps([bytes(300 << 10)] + [b"" for _ in range(1 << 20)]))
    )
    with pytest.raises(UserError, match=r"unpacks to more than the 1048576 bytes that a file of [0-9]+ may"):
        tables.convert(folder, tmp_path / "table.npz")


@pytest.mark.parametrize("form", ["nats-whole", "nb201-zip", "nb201-legacy"])
def test_whole_files_that_are_refused(tmp_path: Path, form: str) -> None:
    source = make(tmp_path, form, indices=[0])
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not the table of a benchmark"):
        tables.convert(source, tmp_path / "table.npz")
    torch.save({"meta_archs": ARCHS, "arch2infos": {99: {}}}, source)
    with pytest.raises(UserError, match="an architecture 99 of 30"):
        tables.convert(source, tmp_path / "table.npz")
    torch.save({"meta_archs": ARCHS, "arch2infos": {0: {"12": {"all_results": 3}}}}, source)
    with pytest.raises(UserError, match="not laid out as NAS-Bench-201 or NATS-Bench"):
        tables.convert(source, tmp_path / "table.npz")
    torch.save({"conv.weight": torch.ones(3)}, source)
    with pytest.raises(UserError, match=r"with the keys conv.weight is the table of no benchmark"):
        tables.convert(source, tmp_path / "table.npz")
    assert not (tmp_path / "table.npz").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "folder", "whole"])
def test_weights_are_left_out(tmp_path: Path, form: str) -> None:
    content = whole_file(ARCHS, [0], {"12": 12})
    results = content["arch2infos"][0]
    results["12"]["all_results"]["cifar10", 777]["net_state_dict"] = torch.nn.Conv2d(3, 4, 3).state_dict()
    source = tmp_path / "source"
    if form == "folder":
        source.mkdir()
        write_bz2(source / "meta.pickle.pbz2", {"meta_archs": ARCHS})
        write_bz2(source / "000000.pickle.pbz2", results)
    elif form == "whole":
        write_bz2(source, content)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=form == "zip")
    benchmark = convert(tmp_path, source)
    assert benchmark.query(TOPOLOGY.from_index(0), "test_accuracy", dataset="cifar10") is not None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 40 training runs of a file with 4 times the epochs: what is kept is the same."""
    monkeypatch.setattr(pickle_machine, "_WINDOW", 512)
    monkeypatch.setattr(pickle_operations, "_BLOCK", 4096)
    monkeypatch.setattr(pickle_file, "_LARGE", 0)

    def peak(epochs: int) -> int:
        path = tmp_path / f"{epochs}.pickle"
        runs = {("cifar100", seed): training_run(0, ARCHS[0], "cifar100", seed, epochs) for seed in range(40)}
        path.write_bytes(pickle.dumps({"all_results": runs}, 2))
        del runs
        tracemalloc.start()
        pickle_file.load(path, nats.summary, what="a table")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(100) < peak(25) + 200_000  # one run of 100 epochs has 1,300 numbers, 40 of them 5 MB
