from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pynas.nn import DARTSSupernet, Genotype


@pytest.fixture
def run(run_pynas: Callable[..., Any]) -> Callable[..., Any]:
    return partial(run_pynas, "supernet")


SMALL = ("--image-size", 8, "--limit", 400, "--channels", 4, "--batch", 32)


def test_darts_on_digits(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    code, out, err = run(*SMALL, "--cells", 2, "--epochs", 2, "--save", file, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert len(record["steps"]) == 2 * (160 // 32)
    assert record["steps"][-1]["loss"] < record["steps"][0]["loss"]
    assert record["held_out_images"] == 80
    assert 0 <= record["held_out_accuracy"] <= 1
    network = DARTSSupernet(4, 2, 10)
    network.load_state_dict(load_file(file), strict=True)
    found = Genotype(record["architecture"]["normal"], record["architecture"]["reduce"])
    assert network.derive() == found


def test_nasbench201_on_digits_for_people(run: Any) -> None:
    code, out, err = run("--space", "nasbench201", *SMALL, "--epochs", 5, "--learning-rate", 0.2)
    assert code == 0, err
    assert "held out:" in out
    assert out.splitlines()[-1].startswith("found: |")
    assert "nasbench201 supernet on digits" in err
    share = float(out.split("held out: ")[1].split(" %")[0])
    assert share > 30  # the largest class is at most a fifth


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--space", "nasbench301"), "--space"),
        (("--sampling", "hard"), "--sampling"),
        (("--held-out", 1.5), "--held-out"),
        (("--learning-rate", -1), "--learning-rate"),
        (("--alpha-learning-rate", "nan"), "--alpha-learning-rate"),
        (("--save", "net.pt"), ".safetensors"),
        (("--save", "/no/such/folder/net.safetensors"), "no such folder"),
        (("--images", "npz:absent.npz"), "absent.npz"),
        (("--limit", 50), "--batch 64"),
    ],
)
def test_bad_input_is_one_line(run: Any, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
