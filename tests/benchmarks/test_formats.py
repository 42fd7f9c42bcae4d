"""The formats of published tables: checksums, framing, and pickles that must not do anything."""

from __future__ import annotations

import bz2
import collections
import io
import os
import pickle
import random
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from official_layouts import crc32c as crc32c_by_bits
from official_layouts import tfrecord

from pynas._errors import UserError
from pynas._io.files import Bounded, open_whole
from pynas._io.pickles import machine as pickle_machine
from pynas._io.pickles import operations as pickle_operations
from pynas._io.pickles import stream as pickle_stream
from pynas._io.pickles.machine import REDUCED
from pynas._io.pickles.stand_ins import ALLOWED
from pynas.tables.formats import pickle_file, protobuf
from pynas.tables.formats.tfrecord import batches


def keep(mapping: dict[Any, Any]) -> None:
    """Reduce nothing."""


# ---- checksums and records -----------------------------------------------------------------------------


def test_checksums_of_the_rfc() -> None:
    # RFC 3720, appendix B.4, and the check value of the catalogue of CRC algorithms.
    vectors = {
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(reversed(range(32))): 0x113FDB5C,
        b"123456789": 0xE3069283,
        b"": 0,
    }
    assert [google_crc32c.value(data) for data in vectors] == list(vectors.values())
    assert [crc32c_by_bits(data) for data in vectors] == list(vectors.values())


def test_records_without_the_package_of_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tfrecord").write_bytes(tfrecord([b"first"]))
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(
        UserError, match=r"google-crc32c; install it with: pip install 'pynas-torch\[tables\]'"
    ):
        read_records(tmp_path / "a.tfrecord")


def read_records(path: Path) -> list[bytes]:
    with open_whole(path) as file:
        return [record for batch in batches(path, file) for record in batch]


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    records = [b"first", b"", os.urandom(3000), *(b"%d" % i for i in range(5000))]
    path.write_bytes(tfrecord(records))
    assert read_records(path) == records
    path.write_bytes(b"")
    assert read_records(path) == []


def test_damaged_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    records = [b"first", b"second", b"third"]
    whole = tfrecord(records)
    second = 16 + len(b"first")
    for at, message in (
        (second + 12, f"record 1 at byte {second}: the checksum of its data is wrong"),
        (second + 12 + 6, f"record 1 at byte {second}: the checksum of its data is wrong"),
        (second, f"record 1 at byte {second}: the checksum of its length is wrong: the file is damaged"),
        (second + 9, f"record 1 at byte {second}: the checksum of its length is wrong"),
        (0, "record 0 at byte 0: the checksum of its length is wrong: this is no TFRecord file"),
    ):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            read_records(path)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        if length in (second, second + 16 + len(b"second")):
            assert read_records(path) == records[: 1 + (length > second)]
        else:
            with pytest.raises(UserError, match="the file is cut short"):
                read_records(path)


def test_a_length_that_no_row_has(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 40)
    path = tmp_path / "a.tfrecord"
    rotated = crc32c_by_bits(length)
    rotated = ((rotated >> 15) | (rotated << 17 & 0xFFFFFFFF)) + 0xA282EAD8 & 0xFFFFFFFF
    path.write_bytes(length + struct.pack("<I", rotated) + bytes(100))
    with pytest.raises(UserError, match="more than any row"):
        read_records(path)


@pytest.mark.parametrize(
    "message", [b"\x08", b"\x08\xff", b"\x0a\x05abc", b"\x09\x00", b"\x0b", b"\x80" * 20]
)
def test_a_message_that_is_none(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|unknown wire type"):
        list(protobuf.fields(message))


def test_fields_of_every_wire_type() -> None:
    message = b"\x08\xac\x02" + b"\x11" + struct.pack("<d", 2.5) + b"\x1a\x02ab" + b"\x25" + bytes(4)
    found = list(protobuf.fields(message))
    assert found == [(1, 0, 300), (2, 1, struct.pack("<d", 2.5)), (3, 2, b"ab"), (4, 5, bytes(4))]
    assert protobuf.double(found[1][2]) == 2.5
    with pytest.raises(ValueError, match="expected a double"):
        protobuf.double(found[0][2])


# ---- pickles -------------------------------------------------------------------------------------------

CONTENT = {
    "numbers": [0, 255, 256, 65536, -1, 2**31, 2**70, -(2**70), 0.1, float("inf"), True, False, None],
    "texts": ("", "a", "é" * 300, b"", b"bytes" * 100),
    "nested": {(1, "x"): [[], {}, ()], "frozen": frozenset({1}), "set": {2, 3}},
    "ordered": collections.OrderedDict(a=1, b=2),
    "counting": collections.defaultdict(list, {"k": [1]}),
    "scalar": np.float64(2.5),
    "integer": np.int64(-7),
}


def write(path: Path, content: Any, form: str) -> None:
    if form.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    else:
        raw = pickle.dumps(content, protocol=int(form[-1]))
        path.write_bytes(bz2.compress(raw) if form.startswith("bz2") else raw)


FORMS = ["pickle2", "pickle3", "pickle4", "pickle5", "bz2-4", "torch", "torch-legacy"]


@pytest.mark.parametrize("form", FORMS)
def test_data_comes_back(tmp_path: Path, form: str) -> None:
    write(tmp_path / "file", CONTENT, form)
    shares: list[float] = []
    found = pickle_file.load(tmp_path / "file", keep, what="a table", on_progress=shares.append)
    assert {k: v for k, v in found.items() if k != "counting"} == {
        k: v for k, v in CONTENT.items() if k != "counting"
    }
    assert found["counting"] == {"k": [1]}
    assert type(found["scalar"]) is float
    assert shares == sorted(shares)
    assert shares[-1] <= 1


@pytest.mark.parametrize("form", ["pickle2", "pickle4", "torch", "torch-legacy"])
def test_arrays_come_back_as_lists_and_tensors_as_nothing(tmp_path: Path, form: str) -> None:
    content: dict[str, Any] = {"a": np.arange(3.0), "b": np.arange(4, dtype=np.int32).reshape(2, 2)}
    if form.startswith("torch"):
        content["weights"] = {"conv": torch.ones(3), "again": torch.nn.Parameter(torch.ones(2))}
    write(tmp_path / "file", content, form)
    found = pickle_file.load(tmp_path / "file", keep, what="a table")
    assert (found["a"].numbers.tolist(), found["b"].numbers.tolist()) == ([0, 1, 2], [[0, 1], [2, 3]])
    assert found.get("weights", {}).get("conv") is None


class Evil:
    """Unpickled naively, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("form", FORMS)
def test_a_malicious_pickle_is_not_run(tmp_path: Path, form: str) -> None:
    write(tmp_path / "file", {"a": Evil(tmp_path / "owned")}, form)
    with pytest.raises(UserError, match=r"it names _?io\.open, which has no place in such a file"):
        pickle_file.load(tmp_path / "file", keep, what="a table")
    assert not (tmp_path / "owned").exists()


class Attribute:
    """Reaches for an attribute of something that is on the list."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (collections.OrderedDict, "__init__")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"cposix\nsystem\n(X\x04\x00\x00\x00truetR.", "names posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "names builtins.eval"),
        (b"\x80\x04]]\x93.", "has no place|damaged"),
        (pickle.dumps(Attribute(), 4), "names builtins.getattr"),
        (b"\x80\x02(K\x01tK\x01R.", "a call of what is no function"),
        (b"\x80\x02K\x01)R.", "a call of what is no function"),
        (b"\x80\x02K\x01K\x02R.", "a call of what is no function"),
        (b"\x80\x02X\x02\x00\x00\x00idQ.", "data outside of it"),
        (b"\x80\x02h\x07.", "refers to item 7, which it never made"),
        (b"\x80\x02K\x01K\x02a.", r"damaged \(items for a int\)"),
        (b"\x80\x02K\x01}b.", "a state for what has none"),
        (b"\x80\x02}](K\x01us.", "damaged"),
        (b"\x80\x02}(]K\x01u.", "damaged"),
        (b"\x80\x02K\x01\x86.", "too few items"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02\x82\x01.", "unknown instruction 0x82"),
        (b"I1\n.", "unknown instruction"),
        (b"", "cut short"),
        (b"garbage", "unknown instruction|cut short|damaged|no place"),
        (b"\x80\x02X\xff\xff\xff\xff", "an item of 4294967295 bytes"),
        (b"\x80\x02X\xff\xff\x00\x00short", "cut short"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "no UTF-8"),
        (b"\x80\x02c" + b"a" * 5000 + b"\nb\n.", "a name without an end|has no place"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.", "a text in utf-8"),
    ],
)
def test_a_pickle_that_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=message) as error:
        pickle_file.load(path, keep, what="a table")
    assert str(path) in str(error.value)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "file", np.array(["a", {}], dtype=object), "pickle4")
    with pytest.raises(UserError, match="damaged"):
        pickle_file.load(tmp_path / "file", keep, what="a table")


@pytest.mark.parametrize("form", ["pickle2", "pickle4", "bz2-4", "torch", "torch-legacy"])
def test_a_cut_file_is_refused(tmp_path: Path, form: str) -> None:
    write(tmp_path / "whole", {"a": list(range(300)), "b": "text" * 50}, form)
    whole = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    # What follows the object in torch's old format (the storages) is never read.
    end = len(whole) if form != "torch-legacy" else len(whole) // 2
    for length in sorted({1, 2, 5, 30, end // 3, end // 2, end - 20, end - 1}):
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a table"):
            pickle_file.load(cut, keep, what="a table")
    with pytest.raises(UserError, match="absent: no such file"):
        pickle_file.load(tmp_path / "absent", keep, what="a table")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(UserError, match=r"without the data\.pkl"):
        pickle_file.load(tmp_path / "a.npz", keep, what="a table")


@pytest.mark.slow
def test_flipped_bytes_never_do_more_than_fail(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": [1.5] * 20, "b": {str(i): i for i in range(30)}, "c": np.float64(1)}, 2)
    path = tmp_path / "file"
    rng = random.Random(0)
    refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            pickle_file.load(path, keep, what="a table")
        except UserError:
            refused += 1
    assert refused > 200


def of_curves(function: Any) -> Any:
    """Summarise the dicts that have a curve."""
    return lambda mapping: function if "curve" in mapping else None


def load_bytes(raw: bytes, summary: Any = keep) -> Any:
    def again() -> Bounded:
        file = io.BytesIO(raw)
        return Bounded(file, len(raw), "too much", file.close)

    return pickle_stream.load(again, ALLOWED, summary, size=len(raw), is_large=True)


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_needed_after_the_window_is_kept(monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.setattr(pickle_machine, "_WINDOW", 16)
    early, shared = "early text", ["shared"]
    content = [early, shared, [f"text {i}" for i in range(200)], early, shared, [early] * 3]
    found = load_bytes(pickle.dumps(content, protocol))
    assert found == content
    assert found[1] is found[4]
    random_content = [str(random.Random(i).randrange(40)) for i in range(500)]
    shuffled = [random_content[i] for i in np.random.default_rng(0).integers(500, size=3000)]
    assert load_bytes(pickle.dumps([random_content, shuffled], protocol)) == [random_content, shuffled]


def test_reduced_dicts_hold_what_the_function_returned() -> None:
    content = {"runs": [{"curve": {i: i / 2 for i in range(50)}, "seed": s} for s in range(3)]}
    raw = pickle.dumps(content, 4)
    found = load_bytes(raw, of_curves(lambda m: m["seed"] * 10 + len(m["curve"])))
    assert found == {"runs": [{REDUCED: 50}, {REDUCED: 60}, {REDUCED: 70}]}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 4])
def test_memory_does_not_grow_with_the_file(monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    """Curves of 10 and of 60 training runs: what is kept of a run is one number."""
    monkeypatch.setattr(pickle_machine, "_WINDOW", 512)
    monkeypatch.setattr(pickle_operations, "_BLOCK", 4096)

    def peak(runs: int) -> int:
        content = {i: {"curve": {f"x{i}@{e}": i + e / 2 for e in range(300)}} for i in range(runs)}
        raw = pickle.dumps(content, protocol)
        del content
        tracemalloc.start()
        load_bytes(raw, of_curves(lambda m: sum(m["curve"].values())))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small, large = peak(10), peak(60)
    assert large < small + 100_000  # the 50 more curves are 2 MB as dicts
