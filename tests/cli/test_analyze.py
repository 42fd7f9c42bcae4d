"""``pynas analyze weight-sharing`` from end to end, tiny, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str, str]]
TINY: tuple[Any, ...] = (
    *("analyze", "weight-sharing", "--space", "nasbench201:channels=4,num_cells=1", "--image-size", 8),
    *("--limit", 128, "--batch", 32, "--sample", 4, "--epochs", 2, "--alone-epochs", 1, "--calibration", 32),
    *("--seeds", 1, "--checkpoints", 2, "--checkpoint-every", 2),
)


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
    for text in ("Picking the best", "Pruning the worst", "Bias of operations", "Stability", "nor_conv_3x3"):
        assert text in html
    assert "src=" not in html.split("</script>")[-1]  # opens without a network
    code, out, _ = run_pynas(*call, "--running")
    assert code == 0
    assert "picking the best" in out
    again = json.loads(run_pynas(*call, "--running", "--json")[1])
    assert again["settings"] == found["settings"]


def test_a_table_is_the_truth(run_pynas: Run, shared_data: Path, tmp_path: Path) -> None:
    table = f"npz:{shared_data / 'nb201_accuracy.npz'}"
    code, out, _ = run_pynas(*TINY, "--groups", "0", "--table", table, "--json")
    assert code == 0
    found = json.loads(out)
    from pynas import benchmarks, spaces

    space = spaces.get("nasbench201")
    known = benchmarks.load(table, space)
    assert found["truth"] == [known.accuracy(space.parse(label)) for label in found["labels"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--groups", "0,x"), "--groups: expected whole numbers"),
        (("--prefix", ""), "--prefix: expected whole numbers"),
        (("--partition", "random"), "--partition: expected sequential | shuffled | similar"),
        (("--held-out", "1"), "--held-out: expected a fraction"),
        (("--metric", "accuracy"), "--metric, --dataset: say of which --table"),
        (("--groups", "9"), "--groups: expected at most 4"),
        (("--space", "nats_size"), "space: there is no supernet of nats_size"),
        (("--checkpoints", 9), "--checkpoints 9: a training of 4 steps has 2"),
        (("--batch", 65), "--batch: larger than the images"),
    ],
)
def test_bad_input(run_pynas: Run, options: tuple[object, ...], message: str) -> None:
    code, _, error = run_pynas(*TINY, *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
