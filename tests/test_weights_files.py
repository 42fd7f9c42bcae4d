"""Weights in files: read as they were written, or not at all."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pynas import UserError, _weights, spaces
from pynas.embedding import Arch2Vec

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b.c": torch.tensor([], dtype=torch.int64),
    "d": torch.tensor(3, dtype=torch.uint8),
    "turned": torch.arange(12.0).view(3, 4).t(),
}
METADATA = {"space": "toy", "note": "a\nb"}


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    _weights.save(path, TENSORS, METADATA)
    tensors, metadata = _weights.load(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(t.dtype == TENSORS[n].dtype and torch.equal(t, TENSORS[n]) for n, t in tensors.items())


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    _weights.save(path, TENSORS, METADATA)
    whole = path.read_bytes()
    rng = random.Random(0)
    for position in [*range(len(whole) - 60, len(whole)), *rng.sample(range(len(whole)), 100)]:
        raw = bytearray(whole)
        raw[position] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(raw))
        read = None
        with contextlib.suppress(UserError):
            read = _weights.load(path)
        if read is not None:  # a space of the header, or the name of the sum itself
            assert chr(whole[position]) in " sha256"
            assert METADATA.items() <= read[1].items()
            assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in read[0].items())
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a readable file of weights"):
            _weights.load(path)


def test_files_from_elsewhere_have_no_sum(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": TENSORS["a"]}, path)
    tensors, metadata = _weights.load(path)
    assert (list(tensors), metadata) == (["a"], {})


def test_a_damaged_embedding_is_refused(tmp_path: Path) -> None:
    path, space = tmp_path / "embedding.safetensors", spaces.get("nasbench201")
    Arch2Vec(space).save(path)
    raw = bytearray(path.read_bytes())
    raw[-1000] ^= 1  # a last digit of a weight
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match="damaged: its contents"):
        Arch2Vec.load(path, space)
