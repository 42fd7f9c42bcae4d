"""``pynas analyze weight-sharing`` from end to end, tiny, and what it refuses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

Run = Callable[..., tuple[int, str, str]]
TINY: tuple[Any, ...] = (
    *("analyze", "weight-sharing", "--space", "nasbench201:channels=4,num_cells=1", "--image-size", 8),
    *("--images", "digits", "--limit", 128, "--batch", 32, "--sample", 4),
    *("--epochs", 2, "--alone-epochs", 1, "--calibration", 32),
    *("--seeds", 1, "--checkpoints", 2, "--checkpoint-every", 2),
)
TINY_TEXT: tuple[Any, ...] = (
    *("analyze", "weight-sharing", "--space", "darts_rnn:nodes=3,features=8", "--steps", 5, "--batch", 8),
    *("--sample", 4, "--epochs", 1, "--alone-epochs", 1, "--seeds", 2, "--checkpoints", 1),
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng = random.Random(0)
    path = tmp_path / "words.txt"
    path.write_text("\n".join(" ".join(rng.choice("abcdefg") for _ in range(9)) for _ in range(20)))
    return path


def test_it_trains_judges_resumes_and_reports(run_pynas: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    call = (*TINY, "--groups", "0,2", "--prefix", "1", "--folder", tmp_path / "study")
    code, out, _ = run_pynas(*call, "--running", "--report", page, "--json")
    assert code == 0
    found = json.loads(out)
    names = [setting["name"] for setting in found["settings"]]
    assert names == [
        "whole space",
        "whole space, running statistics",
        "2 shuffled groups, first 1 layers shared",
        "2 shuffled groups, first 1 layers shared, running statistics",
    ]
    first = found["settings"][0]
    assert [len(first["estimates"]), len(first["estimates"][0]), len(first["estimates"][0][0])] == [1, 2, 4]
    assert len(found["truth"]) == len(found["labels"]) == 4
    assert first["cost_bias"].keys() == {"params"}
    assert len((tmp_path / "study" / "alone.jsonl").read_text().splitlines()) == 4
    html = page.read_text()
    (library,) = tmp_path.glob("plotly-*.min.js")
    for text in ("Picking the best", "Pruning the worst", "Bias of operations", "Stability", "nor_conv_3x3"):
        assert text in html
    assert re.findall(r'<body data-plotly="(.*)">', html) == [library.name]
    assert not re.search(r"(src|href)=", html)  # opens without a network
    code, out, _ = run_pynas(*call, "--running")
    assert code == 0
    assert "picking the best" in out
    again = json.loads(run_pynas(*call, "--running", "--json")[1])
    assert again["settings"] == found["settings"]


def test_moved_and_mirrored_images_train_other_weights(run_pynas: Run) -> None:
    alike = []
    for options in ((), ("--crop", 2), ("--crop", 2, "--flip"), ("--crop", 2, "--flip")):
        code, out, _ = run_pynas(*TINY, "--groups", "0", *options, "--json")
        assert code == 0
        alike.append(json.loads(out)["settings"][0]["estimates"])
    assert alike[2] == alike[3]
    assert len(set(map(str, alike))) == 3


def test_text_is_judged_by_its_likelihood(run_pynas: Run, text: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    call = (*TINY_TEXT, "--text", text, "--limit", 190, "--vocabulary", 6, "--groups", "0,2")
    code, out, _ = run_pynas(*call, "--report", page, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["quality"] == {
        "name": "log likelihood",
        "unit": "nats a word",
        "difference": "nats a word",
    }
    first = found["settings"][0]
    assert first["cost_bias"].keys() <= {"depth"}  # all cells have equally many parameters
    assert {bias["name"] for bias in first["bias"]} <= {"tanh", "relu", "sigmoid", "identity"}
    assert all(-3 < value < -1 for value in found["truth"])  # six words alike probable have -1.79
    assert "ground-truth log likelihood" in page.read_text()
    code, out, _ = run_pynas(*call)
    assert code == 0
    assert "picking the best (regret in nats a word)" in out


def test_a_supernet_of_slices(run_pynas: Run) -> None:
    space = ("--space", "nasbench101:channels=4,num_stacks=2,num_cells=1")
    code, out, _ = run_pynas(*TINY, *space, "--groups", "0,2", "--prefix", 2, "--json")
    assert code == 0
    found = json.loads(out)
    names = {bias["name"] for bias in found["settings"][0]["bias"]}
    assert names <= {"conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"}
    assert found["settings"][1]["name"] == "2 shuffled groups, first 2 layers shared"


def test_a_table_is_the_truth(run_pynas: Run, shared_data: Path, tmp_path: Path) -> None:
    table = f"npz:{shared_data / 'nb201_accuracy.npz'}"
    code, out, _ = run_pynas(*TINY, "--groups", "0", "--table", table, "--json")
    assert code == 0
    found = json.loads(out)
    from pynas import spaces, tables

    space = spaces.get("nasbench201")
    known = tables.load(table, space)
    assert found["truth"] == [known.accuracy(space.parse(label)) for label in found["labels"]]


def test_cells_of_a_table_come_in_the_order_that_training_samples() -> None:
    from pynas.cli._sharing_inputs import draw
    from pynas.spaces import NASBench101
    from pynas.tables._base import Table

    space = NASBench101()
    cell = space.parse("conv3x3:0+maxpool3x3:0+conv1x1:0,1+output:2,3")
    assert space.pruned(cell) != space.canonical(cell)
    (found,) = draw(space, Table("t", "m", "d", space, {space.index(cell): 90.0}), 5, seed=0)
    assert found == space.canonical(cell)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--groups", "0,x"), "--groups: expected whole numbers"),
        (("--prefix", ""), "--prefix: expected whole numbers"),
        (("--partition", "random"), "--partition: expected sequential | shuffled | similar"),
        (("--held-out", "1"), "--held-out: expected a fraction"),
        (("--metric", "accuracy"), "--metric, --dataset: choose from a table: give --table"),
        (("--groups", "9"), "--groups: expected at most 4"),
        (("--space", "nats_size"), "space: there is no supernet of nats_size"),
        (("--checkpoints", 9), "--checkpoints 9: a training of 4 steps writes 2"),
        (("--batch", 65), "--batch: larger than the training data"),
        (("--space", "darts_rnn"), "darts_rnn reads words, not images"),
        (("--crop", 8), "--crop 8: images have 8 x 8 pixels"),
        (("--groups", "2", "--prefix", 8), "prefix: expected a number of segments in 0..6, got 8"),
    ],
)
def test_bad_input(run_pynas: Run, options: tuple[object, ...], message: str) -> None:
    code, _, error = run_pynas(*TINY, *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--running",), "--running: the supernet of darts_rnn has no batch norms"),
        (("--groups", "2", "--prefix", 1), "got 1; darts_rnn has a single segment"),
        (("--space", "nasbench201"), "nasbench201 reads images, not words"),
        (("--flip",), "--crop, --flip: these change images; leave them out with --text"),
        (("--steps", 200), "steps: expected windows of at least one word"),
    ],
)
def test_bad_input_with_text(run_pynas: Run, text: Path, options: tuple[object, ...], message: str) -> None:
    code, _, error = run_pynas(*TINY_TEXT, "--text", text, *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
