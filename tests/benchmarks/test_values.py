"""Numbers that no network can have reached or taken, and what says "no value": in every kind of table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pynas import tables
from pynas._errors import UserError
from pynas.hardware import TabularLatency
from pynas.spaces import NASBench201
from pynas.tables._columns import Column, check_names
from pynas.tables._compact import HEADER

SPACE = NASBench201()
ARCHS = np.array([SPACE.format(SPACE.from_index(i)) for i in range(4)])
FIRST, SECOND = SPACE.from_index(0), SPACE.from_index(1)


def write(path: Path, key: str, values: Any, family: str | None = None, **more: Any) -> Path:
    """A table of one metric: of one's own, or compact."""
    header = {"format": 1, "family": family, "source": "a", "seeds": {}}
    if np.ndim(values) == 2:
        header["seeds"] = {key: [777, 888]}
    compact = {} if family is None else {HEADER: np.array(json.dumps(header))}
    np.savez(path, arch_str=ARCHS, **{key: np.array(values)}, **compact, **more)
    return path


COSTS = (
    "cifar10/raspi4_latency", "cifar10/raspi4_latency_ms", "cifar10/edgegpu_energy", "cifar10/train_time@12",
    "cifar10/params", "cifar10/flops", "cifar10/encoder_FLOPs", "params_m_cifar10", "macs_m_cifar10",
    "trainable_parameters", "training_time_s", "latency", "inference_time", "time_elapsed", "peak_memory",
)  # fmt: skip


@pytest.mark.parametrize("key", COSTS)
def test_minus_one_of_a_cost_is_no_value(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.npz", key, [-1, 4, 3, 5])
    benchmark = tables.open(path, SPACE)
    (column,) = benchmark.columns
    where = {"dataset": column.dataset}
    assert benchmark.query(FIRST, column.metric, **where) is None
    assert benchmark.missing(column.metric, **where) == [FIRST]
    scale = 1e6 if "_m_" in key else 1
    assert benchmark.table(column.metric, **where).best() == (SPACE.from_index(2), 3 * scale)
    by_npz = tables.load(f"npz:{path}", SPACE, key)
    assert by_npz.best() == (SPACE.from_index(2), 3 * scale)
    assert by_npz.accuracy(FIRST) is None
    assert by_npz.unit == column.unit
    content = tables.load_content(path, SPACE)
    assert np.isnan(next(iter(content.columns.values()))).tolist() == [True, False, False, False]


@pytest.mark.parametrize("family", [None, "hw_nas", "nats_tss"])
@pytest.mark.parametrize("key", ["cifar10/raspi4_latency", "cifar10/train_time"])
def test_in_every_family(tmp_path: Path, family: str | None, key: str) -> None:
    path = write(tmp_path / "a.npz", key, [-1.0, 4.0, 3.0, 5.0], family)
    kinds = {None: ("table", "npz"), "hw_nas": ("table", "hw", "npz"), "nats_tss": ("table", "nats", "nb201")}
    for kind in kinds[family]:
        metric = key if kind == "npz" else key.partition("/")[2]
        assert tables.load(f"{kind}:{path}", SPACE, metric).best()[1] == 3
    write(path, key, [-2.0, 4.0, 3.0, 5.0], family)
    for kind in kinds[family]:
        metric = key if kind == "npz" else key.partition("/")[2]
        with pytest.raises(UserError, match=r"of row 0 is -2; expected a .*NaN where there is none"):
            tables.load(f"{kind}:{path}", SPACE, metric)


def test_of_single_runs_and_of_their_mean(tmp_path: Path) -> None:
    values = [[-1.0, 2.0], [4.0, 6.0], [-1.0, -1.0], [1.0, math.nan]]
    benchmark = tables.open(write(tmp_path / "a.npz", "cifar10/train_time@12", values, "nats_tss"))
    assert benchmark.query(FIRST, "train_time") == 2
    assert benchmark.query(FIRST, "train_time", seed=777) is None
    assert benchmark.query(FIRST, "train_time", seed=888) == 2
    assert benchmark.query(SECOND, "train_time") == 5
    assert benchmark.missing("train_time") == [SPACE.from_index(2)]


def ask(path: Path) -> float | None:
    benchmark = tables.open(path, SPACE)
    column = benchmark.columns[0]
    return benchmark.query(FIRST, column.metric, dataset=column.dataset)


@pytest.mark.parametrize(
    ("key", "bad", "message"),
    [
        ("cifar10/raspi4_latency", 0, "is 0; expected a positive number, or -1"),
        ("cifar10/raspi4_latency", -0.5, "is -0.5; expected a positive number, or -1"),
        ("cifar10/raspi4_latency", math.inf, "is inf"),
        ("cifar10/a_energy", -math.inf, "is -inf"),
        ("cifar10/train_time", -3, "is -3; expected a number of at least 0, or -1"),
        ("cifar10/params", -1e6, "is -1e[+]06; expected a number of at least 0"),
        ("params_m_cifar10", -0.5, "is -500000; expected a number of at least 0"),
        ("cifar10/test_accuracy@12", -1, "is -1; expected percent, 0 to 100, NaN where there is none"),
        ("cifar10/test_accuracy@12", 100.5, "is 100.5; expected percent"),
        ("test200_cifar10", 9400, "is 9400; expected percent"),
        ("test200_cifar10", math.inf, "is inf; expected percent"),
        ("jigsaw/test_top1", 101, "is 101; expected percent"),
        ("my_acc", 1000, "is 1000; expected percent"),
        ("cifar10/synflow", math.inf, "is inf; expected a finite number"),
        ("cifar10/test_loss", -math.inf, "is -inf; expected a finite number"),
        ("val_acc_108ep", 93.5, "has a value of 93.5; expected fractions, 0 to 1"),
        ("val_acc_108ep", -0.5, "is -50; expected percent"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, key: str, bad: float, message: str) -> None:
    path = write(
        tmp_path / "a.npz", key, [1.0, bad, 1.0, 1.0] if "_acc_" not in key else [0.5, bad, 0.5, 0.5]
    )
    with pytest.raises(UserError, match=message):
        tables.load(f"npz:{path}", SPACE, key)
    with pytest.raises(UserError, match=message):
        ask(path)


@pytest.mark.parametrize(
    "key",
    [
        "cifar10/grasp", "cifar10/jacov", "jigsaw/test_neg_loss", "cifar10/log_latency",
        "cifar10/rank_of_time", "cifar10/my_loss", "normal/test_ssim", "score",
    ],
)  # fmt: skip
def test_what_may_be_negative_is_a_number(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.npz", key, [-1.0, -2.5, 0.0, 7.0])
    assert sorted(tables.load(f"npz:{path}", SPACE, key).values.values()) == [-2.5, -1, 0, 7]


def test_a_bad_column_leaves_the_others_to_be_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", "cifar10/params", [1, -9, 3, 4], None, test200_cifar10=np.arange(4.0))
    benchmark = tables.open(path, SPACE)
    assert benchmark.query(SECOND) == 1
    with pytest.raises(UserError, match="cifar10/params of row 1 is -9"):
        benchmark.query(SECOND, "params")


def test_the_better_end_of_a_metric() -> None:
    def better(metric: str) -> bool:
        return Column("a", metric).higher_is_better

    for metric in ("accuracy", "test_top1", "valid_neg_loss", "test_ssim", "naswot", "neg_latency", "x_acc"):
        assert better(metric), metric
    for metric in (
        "test_loss", "testloss200_a", "l1_loss", "raspi4_latency_ms", "latency", "params", "encoder_FLOPs",
        "train_time", "time_elapsed", "test_error", "perplexity", "neg_accuracy", "log_params",
    ):  # fmt: skip
        assert not better(metric), metric


def test_names_of_columns() -> None:
    check_names("ImageNet16-120", "x-valid_accuracy")
    for name in ("", "a/b", "a@2", "a\x1b[31m", "a\n", "\u202eb", "a" * 101, 3, None, ("a",)):
        with pytest.raises(ValueError, match=r"is no (printable )?name"):
            check_names("cifar10", name)


# ---- tables of latencies -------------------------------------------------------------------------------


def test_latencies_that_are_refused(tmp_path: Path) -> None:
    path, key = tmp_path / "hw.npz", "cifar10/phone_latency"

    def refused(message: str, **arrays: Any) -> None:
        np.savez(path, **({"arch_str": ARCHS, key: np.ones(4)} | arrays))
        with pytest.raises(UserError, match=message):
            TabularLatency.read(path, SPACE)

    refused("phone of architecture 1 is -2; expected a positive number, -1", **{key: [1, -2, 1, 1]})
    refused("phone of architecture 3 is 0; expected a positive number, -1", **{key: [1, 1, 1, 0]})
    refused("phone of architecture 0 is -inf", **{key: [-math.inf, 1, 1, 1]})
    refused(r"is <U3 of shape \[4\], expected N numbers", **{key: ["1.5"] * 4})
    refused(r"is float64 of shape \[4, 1\], expected N numbers", **{key: np.ones((4, 1))})
    refused(r"is float64 of shape \[\], expected N numbers", **{key: 1.0})
    refused(r"is bool of shape \[4\], expected N numbers", **{key: np.ones(4, bool)})
    refused("rows 0 and 2 of arch_str are the same architecture", arch_str=ARCHS[[0, 1, 0, 2]])
    refused("row 1 of arch_str", arch_str=np.array([ARCHS[0].encode(), b"\xff", b"", b""]))
    refused("arch_str is int64 of shape", arch_str=np.arange(4))
    refused(r"arch_str is <U[0-9]+ of shape \[\], expected N strings", arch_str=ARCHS[0])


# ---- tables whose rows are damaged ---------------------------------------------------------------------

COMPACT: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a scalar of names": (lambda a: a | {"arch_str": ARCHS[0]}, "nothing names its rows"),
    "bytes that are no text": (lambda a: a | {"arch_str": np.array([b"\xff"] * 4)}, "row 0 of arch_str"),
    "numbers for names": (lambda a: a | {"arch_str": np.arange(4)}, "expected N strings"),
    "long names": (lambda a: a | {"arch_str": np.array(["a" * 20_000] * 4)}, "is not an architecture"),
    "an index of its own": (
        lambda a: {"index": np.arange(4) - 9} | {k: v for k, v in a.items() if k != "arch_str"},
        "nothing names its rows",
    ),
    "texts for numbers": (lambda a: a | {"cifar10/params": np.array(["1"] * 4)}, "expected numbers of shape"),
    "a header of brackets": (
        lambda a: a | {HEADER: np.array("[" * 100_000)},
        "header pynas_table is damaged",
    ),
    "a list as a header": (lambda a: a | {HEADER: np.array(["a", "b"])}, "header pynas_table is damaged"),
    "bytes as a header": (lambda a: a | {HEADER: np.array(b"{}")}, "header pynas_table is damaged"),
}


def header(**changes: Any) -> np.ndarray[Any, Any]:
    plain = {"format": 1, "family": "nats_tss", "source": "a", "seeds": {}}
    return np.array(json.dumps(plain | changes))


for _name, _changes in {
    "a list as a family": {"family": ["nats_tss"]},
    "a family of many letters": {"family": "x" * 100_000},
    "endless seeds": {"seeds": {"cifar10/params": [math.inf]}},
    "seeds as texts": {"seeds": {"cifar10/params": "777"}},
    "a seed twice": {"seeds": {"cifar10/params": [1, 1]}},
    "no seeds": {"seeds": None},
}.items():
    COMPACT[_name] = (
        lambda a, changes=_changes: a | {HEADER: header(**changes)},
        "header pynas_table is damaged|a newer pynas may read it",
    )  # fmt: skip


@pytest.mark.parametrize("name", COMPACT)
def test_compact_files_that_are_refused(tmp_path: Path, name: str) -> None:
    change, message = COMPACT[name]
    path = tmp_path / "a.npz"
    np.savez(path, **change({HEADER: header(), "arch_str": ARCHS, "cifar10/params": np.arange(4)}))
    with pytest.raises(UserError, match=message) as error:
        tables.open(path, SPACE)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 500


def test_cells_whose_hashes_or_operations_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cells.npz"
    good: dict[str, Any] = {
        "hash": np.array(["0" * 31 + "1", "0" * 31 + "2"], dtype="S32"),
        "adjacency": np.zeros((2, 7, 7), np.int8),
        "ops": np.full((2, 7), -3, np.int8),
        "op_names": np.array(["conv3x3-bn-relu"]),
        "val_acc_108ep": np.array([0.5, 0.75]),
    }
    for changes, message in (
        ({"hash": np.array("0" * 32)}, "hash is of shape"),
        ({"hash": np.arange(2)}, "expected 32 hexadecimal digits a row: int64"),
        ({"hash": np.array(["é" * 32] * 2)}, "expected 32 hexadecimal digits a row"),
        ({"hash": np.array(["0" * 31 + "1junk", "0" * 31 + "2"])}, "expected 32 hexadecimal digits a row"),
        ({"op_names": np.array("conv")}, "op_names must be the names of operations"),
        ({"op_names": np.arange(3)}, "op_names must be the names of operations"),
    ):
        np.savez(path, **(good | changes))
        with pytest.raises(UserError, match=message):
            tables.open(path, "nasbench101")
    np.savez(path, **good)
    with pytest.raises(UserError):
        tables.load(f"table:{path}", "nasbench101").best()
