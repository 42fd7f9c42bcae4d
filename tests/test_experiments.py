"""Scripts of experiments that leave a record and a part of docs/results.md: small runs on synthetic data."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module("darts_genotypes")
    for name in set(sys.modules) - before:
        if str(EXPERIMENTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten classes of noise, and words that count."""
    random = np.random.default_rng(0)
    for name, count in (("cifar10_train_4k.npz", 64), ("cifar10_test_2k.npz", 40)):
        labels = random.integers(0, 10, count)
        images = random.integers(0, 200, (count, 32, 32, 3)) + 5 * labels[:, None, None, None]
        np.savez(tmp_path / name, images=images.astype(np.uint8), labels=labels)
    for name in ("wikitext2_valid.txt.gz", "wikitext2_test.txt.gz"):
        lines = (" ".join(str(k % 12) for k in range(i, i + 9)) for i in range(40))
        (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


@pytest.mark.usefixtures("bench")
def test_the_page_of_results_is_what_the_records_say() -> None:
    page = importlib.import_module("write_results").page()
    written = (EXPERIMENTS.parent / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == written, "run: make results"


def _fail(*_: Any, **__: Any) -> None:
    raise AssertionError("was trained again")


def test_images_of_found_and_random_cells(
    bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = bench.TINY["cifar10"]
    record = bench.cifar10(folder, setting, folder / "work")
    assert list(record["found"]) == list(setting["warm_up"])
    found = next(iter(record["found"].values()))
    assert len(found["cells"]) == len(found["of_equal_size"]) == len(setting["seeds"])
    assert len({row["cell"] for row in record["random"]}) == setting["random"]
    space = bench.DARTSCNN(**setting["network"])
    params = [row["params"] for row in record["random"]]
    mean = sum(params) / len(params)
    for row, same in zip(found["cells"], found["of_equal_size"], strict=True):
        arch = space.parse(row["cell"])
        network = space.build(arch, 10)
        assert row["params"] == sum(p.numel() for p in network.parameters())
        assert row["skips"] == row["cell"].count("skip_connect")
        assert row["pools"] == row["cell"].count("pool")
        assert same["cell"] == row["cell"]
        assert abs(same["params"] - mean) <= abs(row["params"] - mean)
        assert all(0 <= score <= 100 for score in row["scores"])
    text = "\n".join(bench.section({"cifar10": record}))
    assert f"`{found['cells'][0]['cell']}`" in text
    assert "WikiText" not in text
    # Killed and run again: nothing is searched or trained a second time.
    monkeypatch.setattr("pynas.analysis.standalone.train_alone", _fail)
    monkeypatch.setattr(bench, "Trainer", _fail)
    again = bench.cifar10(folder, setting, folder / "work")
    assert again == json.loads(json.dumps(record))


def test_text_of_found_and_random_cells(
    bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = bench.TINY["text"]
    record = bench.text(folder, setting, folder / "work")
    found = next(iter(record["found"].values()))
    assert len(found["cells"]) == len(setting["seeds"])
    assert len({row["cell"] for row in record["random"]}) == setting["random"]
    assert all(sum(row["activations"].values()) == setting["network"]["nodes"] for row in found["cells"])
    text = "\n".join(bench.section({"text": record}))
    assert f"reach a perplexity of {record['unigram']:.1f}" in text
    monkeypatch.setattr(bench, "train_cell_alone", _fail)
    monkeypatch.setattr(bench, "train_language_model", _fail)
    assert bench.text(folder, setting, folder / "work") == json.loads(json.dumps(record))


def test_percentiles_and_depth(bench: ModuleType) -> None:
    section = sys.modules["darts_genotypes_section"]
    drawn = [{"scores": [value, value + 2]} for value in (1.0, 2.0, 3.0, 4.0)]  # means 2, 3, 4, 5
    assert section._percentiles([3.5, 5.0, 9.0], drawn, 1) == "50, 88, 100"
    assert section._percentiles([3.5, 5.0, 9.0], drawn, -1) == "50, 12, 0"
    space = bench.DARTSRNN(nodes=4)
    depths = {
        "tanh~0|tanh~0|tanh~0|tanh~0": 1,
        "tanh~0|tanh~1|tanh~2|tanh~3": 4,
        "tanh~0|relu~1|tanh~0|relu~3": 2,
    }
    for cell, depth in depths.items():
        assert bench._depth(space, space.parse(cell)) == depth
    assert torch.get_num_threads() == 1
