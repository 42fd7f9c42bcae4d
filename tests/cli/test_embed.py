"""``pynas embed`` on a part of NAS-Bench-201."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pynas
from pynas.embedding import Arch2Vec

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--epochs", 1, "--limit", 60, "--points", 20)


def test_embedding_is_saved_and_drawn(run_pynas: Run, tmp_path: Path, one_thread: None) -> None:
    saved, page = tmp_path / "e.safetensors", tmp_path / "e.html"
    code, out, err = run_pynas("embed", *SMALL, "--save", saved, "--report", page, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert 0 < record["quality"]["operation_accuracy"] <= 1
    assert record["published"]["validity"] == 79.41
    assert len(record["losses"]) == 1
    space = pynas.spaces.get("nasbench201")
    assert Arch2Vec.load(saved, space).embed([space.from_index(3)]).shape == (1, 16)
    assert "principal component 1" in page.read_text()


def test_bad_input(run_pynas: Run, tmp_path: Path) -> None:
    code, _, err = run_pynas("embed", "--space", "nats_size")
    assert code == 2
    assert "no graph encoding" in err
    code, _, err = run_pynas("embed", "--save", tmp_path / "e.bin")
    assert code == 2
    assert ".safetensors" in err
