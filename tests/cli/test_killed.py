"""Commands that are killed in the middle of their work, by SIGKILL, and go on to the same end."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
Run = Callable[..., tuple[int, str, str]]


def killed_when(ready: Callable[[], bool], *arguments: object) -> None:
    """Run ``pynas`` in a process of its own and kill it as soon as ``ready()``."""
    command = [sys.executable, "-m", "pynas.cli", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not ready() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err


def stored(path: Path) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            return store.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def trials(out: str) -> list[tuple[Any, ...]]:
    keys = ("number", "architecture", "status", "scores", "metrics")
    return [tuple(trial[key] for key in keys) for trial in json.loads(out)["trials"]]


@pytest.mark.parametrize(
    ("strategy", "workers"), [pytest.param("epnas", 1, marks=pytest.mark.long), ("evolution", 2)]
)
def test_search(run_pynas: Run, in_this_process: None, tmp_path: Path, strategy: str, workers: int) -> None:
    arguments: tuple[object, ...] = ("search", "--space", "nats_size", "--strategy", strategy, "--batch", 4)
    arguments += ("--objective", "l2_norm", "--budget", 24, "--threads", 1, "--workers", workers, "--json")
    code, whole, err = run_pynas(*arguments)
    assert code == 0, err
    store = tmp_path / "runs.db"
    killed_when(lambda: stored(store) >= 12, *arguments, "--store", store, "--resume")
    assert 12 <= stored(store) < 24
    code, out, err = run_pynas(*arguments, "--store", store, "--resume")
    assert code == 0, err
    assert trials(out) == trials(whole)


@pytest.mark.parametrize("sampling", ["softmax", pytest.param("uniform", marks=pytest.mark.long)])
def test_supernet(run_pynas: Run, tmp_path: Path, sampling: str) -> None:
    arguments = ("supernet", "--space", "nasbench201", "--image-size", 8, "--limit", 400, "--channels", 4)
    arguments += ("--batch", 16, "--epochs", 1, "--sampling", sampling, "--candidates", 2, "--threads", 1)
    arguments += ("--checkpoint-every", 3, "--json")
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    code, expected, err = run_pynas(*arguments, "--checkpoint", whole)
    assert code == 0, err
    killed_when(
        lambda: (folder / "step-00000006.safetensors").exists(),
        *arguments, "--checkpoint", folder, "--resume",
    )  # fmt: skip
    code, out, err = run_pynas(*arguments, "--checkpoint", folder, "--resume")
    assert code == 0, err
    found, record = json.loads(out), json.loads(expected)
    assert found["resumed_from"] >= 6
    for key in ("steps", "architecture", "held_out_accuracy"):
        assert found[key] == record[key]
    # Weights, statistics and what the optimisers keep, at the end.
    last = max(whole.glob("step-*"))
    ours, theirs = load_file(folder / last.name), load_file(last)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("optimizer.weights.") for name in ours)
    assert any(name.startswith("optimizer.architecture.") for name in ours) == (sampling == "softmax")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
