from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pynas.nn import DARTSSupernet, Genotype, NASBench201Supernet

pytestmark = pytest.mark.slow


@pytest.fixture
def run(run_pynas: Callable[..., Any], one_thread: None) -> Callable[..., Any]:
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
    assert "held-out accuracy" in out
    assert out.splitlines()[-1].startswith("found: |")
    assert "nasbench201 supernet on digits" in err
    share = float(out.split("held-out accuracy ")[1].split(" %")[0])
    assert share > 30  # the largest class is at most a fifth


def test_moved_and_mirrored_images(run: Any) -> None:
    losses = []
    for options in ((), ("--crop", 1), ("--crop", 1, "--flip")):
        code, out, err = run(*SMALL, "--cells", 2, "--epochs", 1, *options, "--json")
        assert code == 0, err
        losses.append(json.loads(out)["steps"][-1]["loss"])
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--space", "nasbench301"), "--space"),
        (("--sampling", "hard"), "--sampling"),
        (("--crop", 16, "--limit", 400, "--images", "digits"), "--crop 16: images have 16 x 16 pixels"),
        (("--held-out", 1.5), "--held-out"),
        (("--learning-rate", -1), "--learning-rate"),
        (("--alpha-learning-rate", "nan"), "--alpha-learning-rate"),
        (("--sampling", "fair", "--order", 2), "--order"),
        (("--space", "spos_shufflenet"), "--sampling"),
        (("--precision", "half"), "--precision"),
        (("--resume",), "--checkpoint"),
        (("--checkpoint", "/no/such/folder", "--limit", 400), "--checkpoint: no such folder"),
        (("--save", "net.pt"), ".safetensors"),
        (("--save", "/no/such/folder/net.safetensors"), "no such folder"),
        (("--images", "npz:absent.npz"), "absent.npz"),
        (("--limit", 50, "--batch", 64, "--images", "digits"), "--batch 64"),
    ],
)
def test_bad_input_is_one_line(run: Any, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("sampling", ["uniform", "fair", "flops"])
def test_paths_are_sampled_and_judged(run: Any, sampling: str, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    arguments = (*SMALL, "--space", "nasbench201", "--epochs", 1, "--sampling", sampling, "--candidates", 3)
    code, out, err = run(*arguments, "--save", file, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert len(record["steps"]) == 320 // 32
    accuracies = [candidate["held_out_accuracy"] for candidate in record["candidates"]]
    assert len(accuracies) == 3
    assert record["held_out_accuracy"] == max(accuracies) == accuracies[0]
    assert record["architecture"] == record["candidates"][0]["architecture"]
    NASBench201Supernet(4, 1, 10).load_state_dict(load_file(file), strict=True)


def test_a_training_goes_on(run: Any, tmp_path: Path) -> None:
    folder, file = tmp_path / "checkpoints", tmp_path / "net.safetensors"
    arguments = (*SMALL, "--space", "nasbench201", "--epochs", 1, "--order", 2, "--checkpoint", folder)
    arguments += ("--checkpoint-every", 2)
    whole = json.loads(run(*arguments, "--json", "--save", file)[1])
    assert whole["resumed_from"] == 0
    before = load_file(file)
    code, _, err = run(*arguments)
    assert code == 2
    assert "already holds a training" in err
    newest = max(folder.glob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    again = json.loads(run(*arguments, "--resume", "--json", "--save", file)[1])
    assert again["resumed_from"] == len(whole["steps"]) - 1  # five steps: the fourth and the last are kept
    assert again["steps"] == whole["steps"]
    assert again["architecture"] == whole["architecture"]
    after = load_file(file)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_spos_and_its_log(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    arguments = ("--space", "spos_shufflenet", "--sampling", "uniform", "--image-size", 32, "--limit", 40)
    arguments += ("--channels", 2, "--batch", 16, "--epochs", 1, "--candidates", 2)
    code, out, err = run(*arguments, "--tensorboard", tmp_path / "log")
    assert code == 0, err
    assert "the best of 2 random architectures" in out
    assert out.splitlines()[-1].startswith("found: (")
    (events,) = (tmp_path / "log").glob("events*")
    assert b"learning_rate" in events.read_bytes()
