"""Tables that somebody made to do harm: each is refused in one line, in little time and memory."""

from __future__ import annotations

import base64
import bz2
import io
import json
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from official_layouts import arch_results, training_run

from pynas.spaces import NASBench201
from tests.hostile import SECONDS, Outcome, outcomes

pytestmark = pytest.mark.slow

SPACE = NASBench201()
ARCHS = [SPACE.format(SPACE.from_index(i)) for i in range(15_625)]
FEW = np.array(ARCHS[:3])

# ---- pickles -------------------------------------------------------------------------------------------

DOUBLED = b"K\x01" + b"2\x86" * 60  # t = (t, t), 60 deep: 2^60 steps to hash
DEEP = b"K\x01" + b"\x85" * 300_000  # ((((1,),),),): a stack of 300,000 to hash
LONG_MARK = b"\x80\x02}(X\x01\x00\x00\x00a"


def shared_runs() -> bytes:
    """Two thousand training runs that are all the same large one: a few bytes each."""
    curve = dict.fromkeys(range(10000), 1.0)
    run = training_run(0, ARCHS[0], "cifar100", 777, 2) | dict.fromkeys(
        ("train_times", "train_acc1es"), curve
    )
    return pickle.dumps([dict(run, epochs=10_000) for _ in range(2000)])


def of_runs(**changes: Any) -> bytes:
    results = arch_results(0, ARCHS[0], 2)
    run = results["all_results"]["cifar100", 777]
    run |= changes
    return pickle.dumps({"meta_archs": ARCHS[:1], "arch2infos": {0: {"12": results}}})


def one_result_for_all() -> bytes:
    results = {"12": arch_results(0, ARCHS[0], 1)}
    return pickle.dumps({"meta_archs": ARCHS, "arch2infos": dict.fromkeys(range(15_625), results)})


def many_lengths() -> bytes:
    results = {str(i): arch_results(0, ARCHS[0], 1, {"cifar10": (777,)}) for i in range(100)}
    return pickle.dumps({"meta_archs": ARCHS[:1], "arch2infos": {0: results}})


def hw(values: Any, dataset: Any = "cifar10") -> bytes:
    return pickle.dumps({"nasbench201": {dataset: {"raspi4_latency": values}}})


def lists_of_lists(depth: int) -> list[Any]:
    nested: list[Any] = [1.0]
    for _ in range(depth):
        nested = [nested, nested]
    return nested


def torch_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * (20 << 20))
    return file.getvalue()


PICKLES: dict[str, tuple[bytes, str]] = {
    "a number in the memo": (b"\x80\x02Nr\xff\xff\xff\x3f.", "not the table|no benchmark"),
    "a doubled key": (LONG_MARK[:3] + b"(" + DOUBLED + b"K\x01u.", "a tuple as a key"),
    "a deep key": (LONG_MARK[:3] + b"(" + DEEP + b"K\x01u.", "a tuple as a key"),
    "a deep single key": (LONG_MARK[:3] + DEEP + b"K\x01s.", "a tuple as a key"),
    "a doubled item": (b"\x80\x04\x8f(" + DOUBLED + b"\x90.", "a tuple as a key"),
    "a doubled frozen item": (b"\x80\x04(" + DOUBLED + b"\x91.", "a tuple as a key"),
    "a doubled item of a set that is called": (
        b"\x80\x02c__builtin__\nset\n](" + DOUBLED + b"e\x85R.", "a tuple as a key|not the table"
    ),
    "a doubled key of an ordered dict": (
        b"\x80\x02ccollections\nOrderedDict\n]](" + DOUBLED + b"NeaR.", "call of what|damaged|not the table"
    ),
    "a doubled name": (b"\x80\x04" + DOUBLED + b"\x8c\x01a\x93.", "a name that is no text"),
    "a doubled type": (
        b"\x80\x02cnumpy\ndtype\n" + DOUBLED + b"\x85R.", "an array of type a tuple|names numpy.dtype"
    ),
    "keys of one hash": (pickle.dumps({k * (2**61 - 1): None for k in range(100)}, 2), "many digits"),
    "tuples of one hash": (
        pickle.dumps({tuple(-1 - (i >> j & 1) for j in range(16)): 0 for i in range(100)}, 2),
        "a key of 16 parts",
    ),
    "a long number": (b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * (1 << 20) + b".", "an item of"),
    "a number longer than the file": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an item of 2147483647 bytes"),
    "bytes longer than the file": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b".", "an item of"),
    "bytes longer than any": (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "an item of"),
    "a text longer than the file": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 25) + b".", "cut short"),
    "a frame longer than any": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "not the table|no benchmark"),
    "lists beside lists": (b"\x80\x02" + b"]" * 900_000 + b".", "more than the [0-9]+ objects"),
    "lists in a list": (b"\x80\x02]" + b"]a" * 200_000 + b".", "not the table|no benchmark"),
    "dicts in a dict": (b"\x80\x02}" + b"K\x01}s" * 300 + b".", "not the table|no benchmark"),
    "marks": (b"\x80\x02" + b"(" * 900_000 + b".", "more than the [0-9]+ objects"),
    "memo entries": (b"\x80\x04N" + b"\x94" * 900_000 + b".", "more than the [0-9]+ objects|no benchmark"),
    "one text encoded again and again": (
        b"\x80\x02]c_codecs\nencode\nq\x00X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
        + b"q\x01X\x06\x00\x00\x00latin1q\x02" + b"h\x00h\x01h\x02\x86R" * 30_000 + b".",
        "many more steps|names _codecs",
    ),
}  # fmt: skip
CONVERTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an array of many rows of nothing": (lambda: hw(np.zeros((200_000_000, 0))), "does not fit"),
    "numbers in a tree": (lambda: hw(lists_of_lists(60)), "other things than numbers"),
    "too many numbers": (lambda: hw([1.0] * 100_000), "not laid out as HW-NAS-Bench: 100,000 numbers"),
    "texts as numbers": (lambda: hw(["1.5"] * 15_625), "other things than numbers"),
    "a data set that is a path": (lambda: hw([1.0] * 15_625, "a/b"), "is no name"),
    "a data set that is a command": (lambda: hw([1.0] * 15_625, "a\x1b[2J"), "is no printable name"),
    "a thousand million epochs": (lambda: of_runs(epochs=10**9), "1000000000 epochs"),
    "no epoch": (lambda: of_runs(epochs=0), "0 epochs"),
    "a true epoch": (lambda: of_runs(epochs=True), "True epochs"),
    "an endless epoch": (lambda: of_runs(epochs=float("inf")), "inf epochs"),
    "a million evaluation sets": (
        lambda: of_runs(eval_names=["x-test"] * 1_000_000),
        "expected at most 8 names",
    ),
    "a number too large for a float": (lambda: of_runs(params=2**1200), "damaged"),
    "runs that share a large curve": (shared_runs, "many more steps"),
    "one result for all": (one_result_for_all, "the same results in two places"),
    "trainings of a hundred lengths": (many_lengths, "trainings of 100 lengths"),
    "a bzip2 bomb": (lambda: bz2.compress(b"\x80\x02" + b"]" * (2 << 20)), "more than the [0-9]+ objects"),
    "a torch bomb": (torch_bomb, "more than the [0-9]+ objects"),
}


def record(content: Any) -> bytes:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(raw))
    return length + masked(length) + raw + masked(raw)


def metrics(params: bytes, evaluations: int = 3) -> str:
    one = b"\x0a\x09\x09" + struct.pack("<d", 4.0)
    return base64.b64encode(one * evaluations + b"\x10" + params).decode()


CELL = ["00" * 16, 108, "010001000", "input,conv3x3-bn-relu,output"]
RECORDS: dict[str, tuple[bytes, str]] = {
    "a long record": (record(b" " * (3 << 20)), "has 3,145,728 bytes, more than any row"),
    "brackets": (record(b"[" * 500_000), "record 0 is no row"),
    "a matrix as a list": (record([*CELL[:2], [1] * 9, CELL[3], metrics(b"\x05")]), "record 0 is no row"),
    "operations as a number": (record([*CELL[:3], 7, metrics(b"\x05")]), "record 0 is no row"),
    "a thousand million epochs": (record([CELL[0], 10**9, *CELL[2:], metrics(b"\x05")]), "1000000000 epochs"),
    "true epochs": (record([CELL[0], True, *CELL[2:], metrics(b"\x05")]), "True epochs"),
    "a huge number of parameters": (
        record([*CELL, metrics(b"\xff" * 9 + b"\x01")]), "record 0 is no row of NAS-Bench-101"
    ),
    "a hundred thousand evaluations": (record([*CELL, metrics(b"\x05", 60_000)]), "evaluations of a run"),
    "a number without an end": (record([*CELL, metrics(b"\xff" * 200_000)]), "cut short"),
    "trainings of many lengths": (
        b"".join(record([CELL[0], 1 + i, *CELL[2:], metrics(b"\x05")]) for i in range(40)),
        "more than 16 lengths",
    ),
}  # fmt: skip

# ---- archives ------------------------------------------------------------------------------------------


def member(header: str, data: bytes = b"") -> bytes:
    """An array with a header of our own."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin1") + data


def header(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def archive(
    *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, size: int | None = None, flag: int = 0
) -> bytes:
    """A zip of these; ``size`` is what the list of members says that the last one has."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that names are there twice
        for name, content in (("arch_str.npy", saved(FEW)), *members):
            made.writestr(name, content)
        made.filelist[-1].flag_bits |= flag
        if size is not None:
            made.filelist[-1].file_size = size
    return file.getvalue()


ONES = saved(np.ones(3))
KEY = "test200_cifar10.npy"


def with_header(descr: str, shape: str, data: bytes = b"") -> bytes:
    return archive((KEY, member(header(descr, shape), data)))


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "an array larger than memory": (with_header("'<f8'", "(100000000000,)"), "does not fit its 0 bytes"),
    "an array of more than there are numbers": (with_header("'<f8'", f"({'9' * 400},)"), "does not fit"),
    "a shape that no computer reads": (with_header("'<f8'", f"({'9' * 3000},)"), "damaged header|not a "),
    "many rows of nothing": (with_header("'<f8'", "(200000000, 0)"), "does not fit"),
    "many texts of nothing": (with_header("'|S0'", "(1000000000,)"), "does not fit"),
    "many dimensions": (with_header("'<f8'", f"({'1, ' * 64})", bytes(8)), "has 64 dimensions"),
    "a negative dimension": (with_header("'<f8'", "(-1,)"), "damaged header"),
    "brackets for a shape": (with_header("'<f8'", "(" * 3000), "damaged header"),
    "signs for a shape": (with_header("'<f8'", f"({'-' * 3000}1,)"), "damaged header"),
    "a long header": (archive((KEY, member(header("'<f8'", "(3,)") + " " * 60_000))), "a header of"),
    "objects": (archive((KEY, saved(np.array([{}, 1, "a"], object)))), "objects or records are not read"),
    "records": (archive((KEY, saved(np.zeros(3, "f8,i4")))), "objects or records are not read"),
    "dates": (archive((KEY, saved(np.zeros(3, "M8[s]")))), "objects or records are not read"),
    "a type in a type": (with_header("[('a', " * 300, "(3,)"), "objects or records are not read"),
    "a size that lies": (archive((KEY, ONES), size=1 << 40), "cannot have the"),
    "a small size that lies": (archive((KEY, ONES), size=140), "not a readable|not an .npz"),
    "an encrypted array": (archive((KEY, ONES), flag=1), "is encrypted"),
    "a patched array": (archive((KEY, ONES), flag=0x20), "patched"),
    "a strongly encrypted array": (archive((KEY, ONES), flag=0x40), "encryption"),
    "a method of others": (archive((KEY, ONES), method=zipfile.ZIP_BZIP2), "by a method that neither"),
    "an array twice": (archive((KEY, ONES), (KEY[:-4], b"note"), (KEY, ONES)), "two arrays are called"),
    "a name that is a command": (archive(("\x1b[2Jtest.npy", ONES)), "is none of an array"),
    "a name without an end": (archive(("a" * 60_000 + ".npy", ONES)), "is none of an array"),
    "ten thousand arrays": (archive(*((f"a{i}.npy", b"") for i in range(10_000))), "more than the 4096"),
    "no array": (archive((KEY, b"text")), "is no array"),
    "half of a character": (
        archive((KEY, ONES), ("x.npy", member(header("'<U1'", "(1,)"), b"\0\xd8\0\0"))), "is no character"
    ),
    "no character": (
        archive((KEY, ONES), ("x.npy", member(header("'<U1'", "(1,)"), b"\xff" * 4))), "is no character"
    ),
    "a scalar of names": (
        archive(("hash.npy", saved(np.array("a"))), (KEY, ONES)), "hash is of shape"
    ),
}  # fmt: skip


def bomb(path: Path) -> None:
    """Each array may unpack to what it says; together they take a thousand times the memory of the file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("arch_str.npy", saved(FEW))
        for i in range(24):
            made.writestr(f"a{i}.npy", os.urandom(40_000))
            made.filelist[-1].file_size = 40_000_000
    path.write_bytes(file.getvalue())


def write_all(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Reader, what it reads, and the message, by the name of the case."""
    jobs: dict[str, tuple[str, str, str]] = {}

    def add(reader: str, name: str, content: bytes, suffix: str, message: str, prefix: str = "") -> None:
        path = folder / f"{len(jobs)}{suffix}"
        path.write_bytes(content)
        jobs[f"{reader}: {name}"] = (reader, f"{prefix}{path}", message)

    for name, (content, message) in PICKLES.items():
        add("analog", name, content, ".anb", f"{message}|it names |not the table")
        add("convert", name, content, ".pickle", message)
    for name, (make, message) in CONVERTED.items():
        add("convert", name, make(), ".pickle", message)
    for name, (content, message) in RECORDS.items():
        add("convert", f"record, {name}", content, ".tfrecord", message)
    for name, (content, message) in ARCHIVES.items():
        add("table", name, content, ".npz", message, "table:")
    bomb(folder / "bomb.npz")
    jobs["table: a bomb"] = (
        "table",
        f"table:{folder / 'bomb.npz'}",
        "more than those of a file of [0-9]+ bytes may",
    )
    jobs["npz: a bomb"] = (
        "table",
        f"npz:{folder / 'bomb.npz'}",
        "more than those of a file of [0-9]+ bytes may",
    )
    for name, make_file, message in (
        ("pipe", os.mkfifo, "is a pipe or a device"),
        ("endless", lambda path: os.symlink("/dev/zero", path), "is a pipe or a device"),
        ("loop", lambda path: os.symlink(path, path), "cannot be read: Too many levels"),
        ("folder", os.mkdir, "is a folder"),
    ):
        for reader, suffix, prefix in (
            ("convert", ".tfrecord", ""), ("convert", ".pth", ""), ("analog", ".anb", ""),
            ("table", ".npz", "table:"), ("table", ".npz", "npz:"), ("latency", ".npz", "hw:"),
        ):  # fmt: skip
            path = folder / f"{name}{len(jobs)}{suffix}"
            make_file(path)
            expected = f"{message}|a folder of no benchmark" if reader == "convert" else message
            jobs[f"{reader}, {suffix}: {prefix}{name}"] = (reader, f"{prefix}{path}", expected)
    (folder / "NATS").mkdir()
    os.mkfifo(folder / "NATS" / "meta.pickle.pbz2")
    jobs["a pipe in a folder"] = ("convert", str(folder / "NATS"), "is a pipe or a device")
    return jobs


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Outcome, str, str]]:
    jobs = write_all(tmp_path_factory.mktemp("hostile"))
    found = outcomes([(reader, what) for reader, what, _ in jobs.values()])
    return {
        name: (outcome, what, message)
        for (name, (_, what, message)), outcome in zip(jobs.items(), found, strict=True)
    }


def test_every_hostile_file_is_refused_in_one_line(read: dict[str, tuple[Outcome, str, str]]) -> None:
    assert len(read) > 120
    wrong = []
    for name, (outcome, what, message) in read.items():
        text = outcome.message
        is_fine = outcome.error == "UserError" and re.search(message, text) and "\n" not in text
        if not (is_fine and Path(what.partition(":")[2] or what).name in text and len(text) < 600):
            wrong.append(f"{name}: {outcome.error}: {text}, expected {message}")
    assert not wrong, "\n".join(wrong)
    assert max(outcome.seconds for outcome, _, _ in read.values()) < SECONDS
