"""What speaks against a latency table, and latencies beside accuracies on other data."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_latencies import SPACE, Clock, build

import pynas
from pynas._errors import UserError, UserNotice
from pynas.hardware import LatencyTable, TabularLatency, Timing, cautions, load
from pynas.hardware._fit import PredictionError, doubts_of

pytestmark = pytest.mark.usefixtures("one_thread")
WHOLE = pynas.spaces.get("nasbench201")


class Restless(Clock):
    """A clock on a busy machine: each time is off by a factor of its own."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self._rng, self._spread = random.Random(0), spread

    def measure(self, run: Any) -> Timing:
        ms = super().measure(run).ms * self._rng.uniform(1, 1 + self._spread)
        return Timing(ms, ms, ms, 1)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("busy") / "busy.json"
    build(SPACE, clock=Restless(4.0), path=path, name="busy")
    return path


@pytest.mark.parametrize(
    ("mape", "spread", "count", "said"),
    [
        (20.0, 15.0, 24, []),
        (20.1, 15.0, 24, ["its error on 24 held-out networks is 20 %, more than 20 %; their order has"]),
        (3.0, 15.1, 24, ["times of the same network differ by 15 % between rounds, more than 15 %"]),
        (float("nan"), float("nan"), 0, ["its error is not known"]),
    ],
)  # fmt: skip
def test_limits(mape: float, spread: float, count: int, said: list[str]) -> None:
    found = doubts_of(PredictionError(mape, mape, 0.5, 0.5, spread, count, 0))
    assert len(found) == len(said)
    assert all(text in doubt for text, doubt in zip(said, found, strict=True))


def test_doubts_stand_in_the_file(busy: Path) -> None:
    written = json.loads(busy.read_text())["doubts"]
    table = LatencyTable.load(busy)
    error = table.error()
    assert error.repeatability > 15
    assert list(table.doubts) == written == list(doubts_of(error))
    assert build(SPACE).doubts == ()


def test_a_search_repeats_them(busy: Path, run_pynas: Any) -> None:
    table = LatencyTable.load(busy, SPACE)
    with pytest.warns(UserNotice) as caught:
        pynas.search(SPACE, strategy="random", objectives=["-latency"], hardware=[table], budget=2)
    assert [str(warned.message) for warned in caught] == [f"latency:busy: {doubt}" for doubt in table.doubts]
    words = ("search", "--space", "nasbench201:channels=4,num_cells=1", "--objective=-latency", "--budget", 2)
    code, out, err = run_pynas(*words, "--latency", f"table:{busy}")
    assert code == 0
    assert err.count("latency:busy: times of the same network differ by") == 1
    assert "latency:busy is in ms, 8 x 8 x 3, 10 classes, batch 2, torch" in out
    code, out, _ = run_pynas(*words, "--latency", f"table:{busy}", "--json")
    (record,) = json.loads(out)["latencies"]
    assert (record["unit"], record["device"], record["doubts"]) == ("ms", "busy", list(table.doubts))
    code, _, err = run_pynas("hardware", "show", busy)
    assert code == 0
    assert "between rounds, more than 15 %" in err


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "hw.npz"
    ones = np.ones(WHOLE.size or 0)
    np.savez(
        path, **{"cifar10/pi_latency": ones, "cifar100/pi_latency": 2 * ones, "cifar100/pi_energy": ones}
    )
    return path


def test_published_latencies_of_other_data(archive: Path) -> None:
    (ten,) = load(f"hw:{archive}:pi", WHOLE)
    hundred, energy = load(f"hw:{archive}:pi", WHOLE, "cifar100")
    assert (ten.facts()["dataset"], hundred.facts()["dataset"], energy.facts()["unit"]) == (
        "cifar10", "cifar100", "mJ",
    )  # fmt: skip
    assert list(cautions([ten, hundred], "cifar100")) == [
        "latency:pi is set beside accuracies on cifar100, but it was measured on networks for cifar10"
    ]
    assert list(cautions([ten], "cifar10-valid")) == list(cautions([ten], None)) == []
    unnamed = TabularLatency(WHOLE, np.ones(WHOLE.size or 0), "mine")
    assert list(cautions([unnamed], "cifar100")) == []
    table = pynas.tables.Table("t", "accuracy", "cifar100", WHOLE, dict.fromkeys(range(15_625), 50.0))
    with pytest.warns(UserNotice, match="beside accuracies on cifar100, but it was measured on networks for"):
        pynas.search(WHOLE, strategy="random", objectives=["-latency"], hardware=[ten], table=table, budget=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pynas.search(
            WHOLE, strategy="random", objectives=["-latency"], hardware=[hundred], table=table, budget=2
        )


def test_measured_latencies_of_other_data() -> None:
    table = build(SPACE)
    assert table.unlike("a set of my own") == ""
    assert table.unlike("ImageNet16-120") == (
        "it was built for 10 classes and images of 8 pixels, and ImageNet16-120 has 120 and 16: build it "
        "with --num-classes 120 --image-size 16"
    )


def test_commands_name_data_set_and_unit(archive: Path, run_pynas: Any) -> None:
    words = ("hardware", "predict", f"hw:{archive}:pi", WHOLE.format(WHOLE.from_index(3)))
    for options, dataset, value in (((), "cifar10", 1.0), (("--dataset", "cifar100"), "cifar100", 2.0)):
        code, out, err = run_pynas(*words, "--space", "nasbench201", *options, "--json")
        assert (code, err) == (0, "")
        first = json.loads(out)[0]
        assert (first["dataset"], first["unit"], first["device"], first["value"]) == (
            dataset,
            "ms",
            "pi",
            value,
        )
        code, out, _ = run_pynas(*words, "--space", "nasbench201", *options)
        assert code == 0
        assert dataset in out
    code, out, _ = run_pynas(
        "hardware", "show", f"hw:{archive}", "--space", "nasbench201", "--dataset", "cifar100"
    )
    assert (code, "cifar100" in out, "cifar10 " in out) == (0, True, False)


def test_a_measured_table_has_one_data_set(busy: Path) -> None:
    from pynas.cli.hardware_specs import open_model

    with pytest.raises(UserError, match="--dataset: a table of 'pynas hardware build' is of one input size"):
        open_model(f"table:{busy}", SPACE, "cifar100")
