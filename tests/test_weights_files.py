"""Weights in files: read as they were written, or not at all."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pynas import UserError, spaces
from pynas._io import weights
from pynas.embedding import Arch2Vec
from pynas.supernet import training_state
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from tests.damage import same

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b.c": torch.tensor([], dtype=torch.int64),
    "d": torch.tensor(3, dtype=torch.uint8),
    "turned": torch.arange(12.0).view(3, 4).t(),
}
METADATA = {"space": "toy", "note": "a\nb"}


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(path, TENSORS, METADATA)
    tensors, metadata = weights.load(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(t.dtype == TENSORS[n].dtype and torch.equal(t, TENSORS[n]) for n, t in tensors.items())


@pytest.mark.slow
def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """What is read is what was written; spaces of the header may turn into other blanks."""
    path = tmp_path / "a.safetensors"
    weights.save(path, TENSORS, METADATA)
    whole = path.read_bytes()
    rng, read = random.Random(0), 0
    for position in range(len(whole)):
        raw = bytearray(whole)
        raw[position] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(raw))
        try:
            tensors, metadata = weights.load(path)
        except UserError:
            continue
        read += 1
        assert metadata == METADATA
        assert same(tensors, TENSORS)
    assert read < 10


@pytest.mark.parametrize("letter", range(len("sha256")))
def test_a_damaged_name_of_the_sum(letter: int, tmp_path: Path) -> None:
    """A file of pynas without its sum is damaged: what changed that name may have changed more."""
    path = tmp_path / "a.safetensors"
    weights.save(path, TENSORS, METADATA)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"sha256") + letter] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match="damaged, or not of pynas: it has no sum of its contents"):
        weights.load(path)
    # One from elsewhere may hold such a text; nothing is taken for a sum that is not called one.
    assert same(weights.load(path, checked=False)[0], TENSORS)


def test_files_from_elsewhere_have_no_sum(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": TENSORS["a"]}, path)
    tensors, metadata = weights.load(path, checked=False)
    assert (list(tensors), metadata) == (["a"], {})
    with pytest.raises(UserError, match="damaged, or not of pynas: it has no sum"):
        weights.load(path)
    save_file({"a": TENSORS["a"]}, path, {"sha256": "0" * 64})
    with pytest.raises(UserError, match="damaged: its contents do not have the sum"):
        weights.load(path, checked=False)


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        (1 << 62).to_bytes(8, "little") + b"{}",
        b"\xff" * 8,
        packed(b"[]"),
        packed(b"[" * 100_000),
        packed(b'{"a": 1e999}'),
        packed({"__metadata__": {"a": 3}}),
        packed({"__metadata__": []}),
        packed({"a": 3}),
        packed({"a": {}}),
        packed(entry(offsets=(0, 4))),
        packed(entry(offsets=(0, 1 << 62)), bytes(4)),
        packed(entry(offsets=(-4, 0)), bytes(4)),
        packed(entry(offsets=(4, 0)), bytes(4)),
        packed(entry(offsets=(0, 4.0)), bytes(4)),
        packed(entry(offsets=(0, True)), bytes(1)),
        packed(entry(shape=(1 << 62, 4)), bytes(4)),
        packed(entry(shape=(1 << 200,)), bytes(4)),
        packed(entry(shape=(-1,)), bytes(4)),
        packed(entry(shape="1"), bytes(4)),
        packed(entry(shape=()), bytes(4) + b"more"),
        packed(entry(dtype="F4"), bytes(4)),
        packed(entry(dtype="C64"), bytes(4)),
        packed(entry(dtype=None), bytes(4)),
        packed(entry(dtype="\ud800"), bytes(4)),
        packed(entry(), bytes(3)),
        packed(entry(), bytes(5)),
        packed(json.dumps([entry(), entry(offsets=(4, 8))]).replace("}}, {", "}, ")[1:-1].encode(), bytes(8)),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_headers_that_no_writer_writes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable file of weights: ") as caught:
        weights.load(path, checked=False)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_header_that_promises_more_than_the_disk_has(tmp_path: Path) -> None:
    """Nothing is read or mapped before the file is as long as it says."""
    path = tmp_path / "a.safetensors"
    weights.save(path, TENSORS, METADATA)
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(UserError, match=f"its tensors end at byte [0-9]+, the file has {1 << 42}"):
        weights.load(path)


@pytest.mark.parametrize("number", range(4))
def test_a_full_disk_leaves_the_old_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails: writing, waiting for the disk, renaming."""
    path = tmp_path / "a.safetensors"
    weights.save(path, TENSORS, METADATA)
    whole = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if number == 0:
            patched.setattr(os, "fsync", full)
        elif number == 1:
            patched.setattr(os, "replace", full)
        elif number == 2:
            patched.setattr(Path, "open", full)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with pytest.raises(UserError, match=f"{path.name}: cannot"):
                weights.save(path, {"other": torch.zeros(1000)}, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert path.read_bytes() == whole
    assert [place.name for place in tmp_path.iterdir()] == [path.name]


def test_tied_weights_and_parts_of_one_tensor(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.safetensors", torch.arange(8.0)
    tensors = {"embedding": whole, "decoder": whole, "part": whole[2:4], "none": whole[:0]}
    weights.save(path, tensors, {})
    assert same(weights.load(path)[0], tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "a.safetensors: no: it lacks a$"),
        ({"more": torch.zeros(1)}, "a.safetensors: no: it also holds more$"),
        ({"a": None, "b": torch.zeros(1)}, "it lacks a and it also holds b$"),
        ({"a": torch.zeros(3, 2)}, r"its a is float32 \[3, 2\], expected float32 \[2, 3\]"),
        ({"a": torch.zeros(2, 3).double()}, r"its a is float64 \[2, 3\], expected float32 \[2, 3\]"),
        ({"d": torch.tensor(3.0)}, r"its d is float32 \[\], expected uint8 \[\]"),
        ({f"{i}" * 50: torch.zeros(1) for i in range(10, 90)}, "and [0-9]+ more$"),
    ],
)
def test_tensors_of_another_model(change: dict[str, Any], message: str) -> None:
    others = {name: tensor for name, tensor in (TENSORS | change).items() if tensor is not None}
    with pytest.raises(UserError, match=message) as caught:
        weights.check_fits(others, TENSORS, "a.safetensors: no")
    assert len(str(caught.value)) < 400
    weights.check_fits(dict(TENSORS), TENSORS, "a.safetensors")


# ---- embeddings --------------------------------------------------------------------------------------


def embedding(path: Path, change: Any = None, **metadata: str) -> None:
    """A file like that of ``Arch2Vec.save``, changed, with the right sum."""
    Arch2Vec(spaces.get("nasbench201")).save(path)
    tensors, kept = weights.load(path)
    if change is not None:
        change(tensors)
    weights.save(path, tensors, kept | metadata)


def fill(tensors: dict[str, Tensor], value: float) -> None:
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(value)


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (lambda t: t.popitem(), {}, "not an embedding of this version: it lacks"),
        (lambda t: t.update(more=torch.zeros(1)), {}, "it also holds more"),
        (lambda t: t.update({k: v.double() for k, v in t.items()}), {}, "float64 .*, expected float32"),
        (lambda t: fill(t, math.nan), {}, "weights that are not finite"),
        (lambda t: fill(t, math.inf), {}, "weights that are not finite"),
        (None, {"space": "nasbench101"}, "of space 'nasbench101', expected 'nasbench201'"),
        (None, {"operations": "input conv output"}, "of the operations input conv output, expected input"),
    ],
)
def test_an_embedding_of_something_else(
    change: Any, metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "e.safetensors"
    embedding(path, change, **metadata)
    with pytest.raises(UserError, match=message) as caught:
        Arch2Vec.load(path, spaces.get("nasbench201"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_embedding_is_refused(tmp_path: Path) -> None:
    path, space = tmp_path / "embedding.safetensors", spaces.get("nasbench201")
    Arch2Vec(space).save(path)
    raw = bytearray(path.read_bytes())
    raw[-1000] ^= 1  # a last digit of a weight
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match="damaged: its contents"):
        Arch2Vec.load(path, space)


# ---- checkpoints -------------------------------------------------------------------------------------


def checkpoint(folder: Path, **metadata: str) -> CheckpointFolder:
    """One checkpoint, after step 3, with other texts in its header."""
    made = CheckpointFolder(folder)
    made.save(Checkpoint(3, TENSORS, {"restarts": 0}))
    tensors, kept = weights.load(made.path(3))
    weights.save(made.path(3), tensors, kept | metadata)
    return made


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "pynas-checkpoint-1"}, "not a checkpoint of a supernet's training"),
        ({"step": "4"}, "damaged: its name says step 3, its header says 4"),
        ({"step": "٣"}, "damaged: its name says step 3, its header says ٣"),
        ({"record": "[]"}, "damaged: its record is not a JSON object"),
        ({"record": "{"}, "damaged: its record is not JSON: "),
        ({"record": "[" * 100_000}, "damaged: its record is not JSON: it is nested too deeply"),
        ({"record": '{"a": NaN}'}, "damaged: its record is not JSON: NaN is no number"),
    ],
)
def test_a_checkpoint_that_no_training_writes(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        checkpoint(tmp_path, **metadata).load(3)


def test_what_lies_beside_checkpoints(tmp_path: Path) -> None:
    made = CheckpointFolder(tmp_path)
    made.save(Checkpoint(3, TENSORS, {}))
    for name in (
        "step-4.safetensors",
        "step-٠٠٠٠٠٠٠٥.safetensors",
        "step-000000006.safetensors",
        "notes.txt",
    ):
        (tmp_path / name).touch()
    assert made.steps() == [3]
    (tmp_path / ".step-00000009.safetensors.ab12.partial").touch()  # of a training that was killed
    (tmp_path / "step-00000007.safetensors").mkdir()
    os.mkfifo(tmp_path / "step-00000008.safetensors")
    found, damaged = made.load_latest()
    assert found is not None
    assert found.step == 3
    assert [message.rpartition(": ")[2] for message in damaged] == [
        "is a pipe or a device, expected a file",
        "is a folder, expected a file",
    ]
    for path in (tmp_path / "step-00000008.safetensors", made.path(3)):
        path.unlink()
    (tmp_path / "step-00000007.safetensors").rmdir()
    made.save(Checkpoint(4, TENSORS, {}))
    assert not list(tmp_path.glob(".*"))


def trained(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, torch.optim.Optimizer]]:
    """All tensors after one step, and the optimisers that made it."""
    optimizers: dict[str, torch.optim.Optimizer] = {
        "weights": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
        "architecture": torch.optim.Adam(model.parameters(), 0.1),
    }
    torch.autograd.backward(model(torch.ones(2, 3)).sum())
    for optimizer in optimizers.values():
        optimizer.step()
    return training_state.collect(model, optimizers), optimizers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.bias": None}, "of another model: it lacks bias$"),
        ({"model.more": torch.zeros(1)}, "of another model: it also holds more$"),
        ({"model.weight": torch.zeros(3, 4)}, r"of another model: its weight is float32 \[3, 4\], expected"),
        (
            {"optimizer.weights.9.momentum_buffer": torch.zeros(1)},
            "of another model: its optimizer.weights.9.",
        ),
        (
            {"optimizer.weights.-1.step": torch.zeros(1)},
            "has optimizer.weights.-1.step, for which there is no",
        ),
        ({"optimizer.weights.x": torch.zeros(1)}, "of another training: it has optimizer.weights.x, for"),
        ({"optimizer.third.0.step": torch.zeros(())}, "it has optimizer.third.0.step, for which there is no"),
    ],
)
def test_tensors_of_another_training(change: dict[str, Any], message: str) -> None:
    model = nn.Linear(3, 4)
    tensors, optimizers = trained(model)
    before = training_state.collect(model, optimizers)
    others = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    with pytest.raises(UserError, match=message) as caught:
        training_state.restore(others, model, optimizers, "step-00000003.safetensors")
    assert str(caught.value).startswith("step-00000003.safetensors: ")
    assert same(training_state.collect(model, optimizers), before), "restored by half"


def test_a_training_comes_back_as_it_was() -> None:
    model = nn.Linear(3, 4)
    tensors, optimizers = trained(model)
    other = nn.Linear(3, 4)
    _, others = trained(other)
    training_state.restore(tensors, other, others)
    assert same(training_state.collect(other, others), tensors)
    third = nn.Linear(3, 4)
    training_state.restore(tensors, third, {})  # the model alone
    assert torch.equal(third.weight, model.weight)
    assert optimizers
