"""NAS-Bench-101: from its TFRecord files, made here in their layout, to answers by cell."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_layouts import nasbench101_record, tfrecord

from pynas import tables
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import NASBench101
from pynas.tables.conversion import nasbench101
from pynas.tables.formats import tfrecord as tfrecord_file

SPACE = NASBench101()


@pytest.fixture(scope="module")
def cells() -> list[Architecture]:
    rng = random.Random(0)
    return [SPACE.sample(rng) for _ in range(6)]


def numbers(row: int, epochs: int, run: int) -> tuple[float, float, float, float]:
    """Time and train, validation, test accuracy; a different one for everything."""
    base = (row + 1) / 16 + epochs / 1024 + run / 4096
    return 10.0 * epochs + row + run / 4, base + 0.25, base + 0.125, base


def records(cells: list[Architecture], lengths: tuple[int, ...], runs: int = 3) -> list[bytes]:
    found = []
    for epochs in lengths:
        for run in range(runs):
            for row, cell in enumerate(cells):
                matrix, operations = SPACE.matrix(cell)
                adjacency = [[int(entry) for entry in line] for line in matrix]
                found.append(
                    nasbench101_record(
                        SPACE.hash(cell),
                        epochs,
                        adjacency,
                        list(operations),
                        numbers(row, epochs, run),
                        SPACE.params(cell),
                    )
                )
    return found


def convert(folder: Path, rows: list[bytes]) -> tables.Benchmark:
    (folder / "nasbench.tfrecord").write_bytes(tfrecord(rows))
    tables.convert(folder / "nasbench.tfrecord", folder / "nb101.npz", overwrite=True)
    return tables.open(folder / "nb101.npz")


def test_every_number_comes_back(tmp_path: Path, cells: list[Architecture]) -> None:
    benchmark = convert(tmp_path, records(cells, (4, 12, 36, 108)))
    assert len(benchmark) == 6
    assert benchmark.datasets == ("cifar10",)
    assert benchmark.epochs("test_accuracy") == (4, 12, 36, 108)
    assert set(benchmark.metrics()) == {
        "params",
        *(f"{n}_accuracy" for n in ("train", "valid", "test")),
        "train_time",
    }
    for row, cell in enumerate(cells):
        assert benchmark.query(cell, "params") == SPACE.params(cell)
        for epochs in (4, 12, 36, 108):
            for run in range(3):
                time, train, valid, test = numbers(row, epochs, run)
                expected = {
                    "train_time": time,
                    "train_accuracy": 100 * train,
                    "val_accuracy": 100 * valid,
                    "test_accuracy": 100 * test,
                }
                for metric, value in expected.items():
                    found = benchmark.query(cell, metric, epochs=epochs, seed=run)
                    assert found == pytest.approx(value, rel=1e-7), (metric, epochs, run)
            mean = np.mean([100 * numbers(row, epochs, run)[2] for run in range(3)])
            assert benchmark.query(cell, f"valid_accuracy@{epochs}") == pytest.approx(mean, rel=1e-7)
            assert benchmark.cost(cell, epochs=epochs) == pytest.approx(10 * epochs + row + 0.25)
        assert benchmark.query(cell) == benchmark.query(cell, "test_accuracy", epochs=108)


def test_isomorphic_cells_are_the_same_row(tmp_path: Path, cells: list[Architecture]) -> None:
    small = SPACE.from_matrix([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"])
    benchmark = convert(tmp_path, records([*cells, small], (108,)))
    rng = random.Random(1)
    others = 0
    for row in range(7):
        cell = benchmark.rows.architecture(row)
        assert benchmark.query(SPACE.canonical(cell)) == benchmark.query(cell)
        for _ in range(200):
            other = SPACE.mutate(cell, rng)
            if SPACE.hash(other) == SPACE.hash(cell):
                others += other != cell
                assert benchmark.query(other) == benchmark.query(cell)
    assert others  # an edge to an unused vertex changes the decisions, not the cell
    absent = next(a for a in SPACE.unique() if SPACE.hash(a) not in {SPACE.hash(c) for c in cells})
    assert benchmark.query(absent) is None
    assert benchmark.cost(absent) is None


def test_a_table_for_a_search(tmp_path: Path, cells: list[Architecture]) -> None:
    convert(tmp_path, records(cells, (12, 108)))
    table = tables.load(f"nb101:{tmp_path / 'nb101.npz'}#valid_accuracy@12", "nasbench101")
    best, value = table.best()
    assert SPACE.hash(best) == SPACE.hash(cells[5])
    assert value == pytest.approx(np.mean([100 * numbers(5, 12, run)[2] for run in range(3)]), rel=1e-7)
    assert (len(table), table.metric, table.dataset, table.unit) == (6, "valid_accuracy@12", "cifar10", "%")
    assert table.accuracy(cells[0]) == pytest.approx(value - 500 / 16, rel=1e-6)
    assert {SPACE.hash(arch) for arch in table.architectures()} == {SPACE.hash(cell) for cell in cells}
    with pytest.raises(UserError, match="too large to list"):
        table.accuracies()


def test_fewer_runs_are_explicit(tmp_path: Path, cells: list[Architecture]) -> None:
    rows = records(cells[:2], (108,), runs=1) + records(cells[:3], (12,), runs=2)
    benchmark = convert(tmp_path, rows)
    assert [SPACE.hash(a) for a in benchmark.missing("test_accuracy@108")] == [SPACE.hash(cells[2])]
    assert benchmark.query(cells[2], "test_accuracy", epochs=108) is None
    assert benchmark.query(cells[0], "test_accuracy", epochs=12, seed=2) is None
    assert benchmark.query(cells[0], "test_accuracy", epochs=12) is not None
    with pytest.raises(UserError, match="test_accuracy: expected epochs 12, 108, got 36"):
        benchmark.query(cells[0], epochs=36)
    with pytest.raises(UserError, match="has the runs 0, 1, 2, got 777"):
        benchmark.query(cells[0], epochs=12, seed=777)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:4], "not enough values"),
        (lambda f: ["zz" * 16, *f[1:]], "non-hexadecimal"),
        (lambda f: ["00" * 15, *f[1:]], "the module hash"),
        (lambda f: [f[0], "108", *f[2:]], "'108' epochs"),
        (lambda f: [*f[:2], f[2] + "1", *f[3:]], "a cell with"),
        (lambda f: [*f[:2], f[2].replace("1", "2"), *f[3:]], "a cell with"),
        (lambda f: [*f[:3], f[3].replace("output", "conv5x5"), f[4]], "conv5x5"),
        (lambda f: [*f[:4], "!" + f[4][1:]], "base64"),
        (lambda f: [*f[:4], f[4][:40]], "cut short|evaluations"),
        (lambda f: [*f[:4], ""], "0 evaluations of a run"),
    ],
)
def test_a_record_of_another_form(
    tmp_path: Path, cells: list[Architecture], change: Callable[[list[Any]], list[Any]], message: str
) -> None:
    rows = records(cells[:2], (108,))
    rows[1] = json.dumps(change(json.loads(rows[1]))).encode()
    (tmp_path / "a.tfrecord").write_bytes(tfrecord(rows))
    with pytest.raises(UserError, match=f"record 1 is no row of NAS-Bench-101: .*({message})"):
        tables.convert(tmp_path / "a.tfrecord", tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tfrecord"]


def test_a_fourth_run_and_no_records(tmp_path: Path, cells: list[Architecture]) -> None:
    with pytest.raises(UserError, match="a fourth run of 108 epochs"):
        convert(tmp_path, records(cells[:1], (108,), runs=4))
    with pytest.raises(UserError, match="holds no record"):
        convert(tmp_path, [])


@pytest.mark.slow
def test_memory_is_that_of_the_result(
    tmp_path: Path, cells: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the records take the memory of four times the numbers: 48 bytes of each run and cell."""
    monkeypatch.setattr(tfrecord_file, "_BATCH_RECORDS", 64)
    some = records(cells[:1], (108,), runs=1)[0]
    name = SPACE.hash(cells[0]).encode()

    def peak(lengths: int) -> int:
        rows = [
            some.replace(name, f"{i:032x}".encode()).replace(b"108,", f"{epochs},".encode())
            for epochs in range(1, lengths + 1)
            for i in range(300)
        ]
        path = tmp_path / f"{lengths}.tfrecord"
        path.write_bytes(tfrecord(rows * 3))
        del rows
        tracemalloc.start()
        content = nasbench101.convert(path, lambda share: None)
        used = tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(content) == 300
        return used

    numbers = 1024 * 3 * 4 * 4  # rows that there is room for, runs, metrics, bytes of a float32
    assert peak(4) < peak(1) + 3 * (numbers + 1024) + 50_000


def test_the_published_sample(shared_data: Path) -> None:
    benchmark = tables.open(shared_data / "nb101_sample15k.npz", "nasbench101")
    assert len(benchmark) == 15_000
    assert benchmark.epochs("valid_accuracy") == (4, 12, 36, 108)
    rng = random.Random(0)
    with np.load(shared_data / "nb101_sample15k.npz") as archive:
        hashes, accuracy = archive["hash"], archive["val_acc_108ep"]
    for row in rng.sample(range(15_000), 100):
        cell = benchmark.rows.architecture(row)
        assert SPACE.hash(cell).encode() == hashes[row]
        assert benchmark.query(SPACE.canonical(cell)) == pytest.approx(100 * accuracy[row])
        assert benchmark.query(cell, "params") == SPACE.params(cell)
    table = tables.load(f"table:{shared_data / 'nb101_sample15k.npz'}", "nasbench101")
    assert table.metric == "valid_accuracy@108"
    assert round(table.best()[1], 3) == round(100 * float(accuracy.max()), 3)
