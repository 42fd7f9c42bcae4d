"""What is fuzzed: each reader and parser with the errors that it documents, and inputs to begin with."""

from __future__ import annotations

import functools
import importlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynas import _named, data, hardware, spaces, tables
from pynas._errors import UserError
from pynas._io import strict_json
from pynas.architecture import Architecture
from pynas.cli import hardware_specs, specs
from pynas.nn import Genotype
from pynas.run import objectives
from pynas.spaces import NASBench201, SearchSpace, template
from pynas.tables.formats import protobuf, tfrecord
from pynas.testing._sandbox import verdict
from pynas.testing.fuzz._readers import READERS, Reader

__all__ = ["TARGETS", "Target", "check_text"]

_SPACE = NASBench201()


@dataclass(frozen=True)
class Target:
    """One reader or parser.

    Attributes:
        name: For the command line, and the name of its folder in the corpus.
        run: Reads an input.
        seeds: Valid inputs, or nearly.
        accepted: Errors that say that an input is bad; anything else is a failure.
        tokens: Pieces that inputs are made of.
        filename: Of the file that ``run`` reads, which errors must name; empty if it is no file.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]] = tuple
    accepted: tuple[type[Exception], ...] = (UserError,)
    tokens: tuple[bytes, ...] = ()
    filename: str = ""

    def verdict(self, raw: bytes) -> tuple[str, str]:
        """What is wrong with how ``raw`` is read, or nothing; and how that ended."""
        echoed = 0 if self.filename else len(raw) + 1
        return verdict(lambda: self.run(raw), self.accepted, self.filename, echoed)


@functools.cache
def folder() -> Path:
    """Where input goes that has to be a file."""
    return Path(tempfile.mkdtemp(prefix="pynas-fuzz-"))


def _text(raw: bytes) -> str:
    """As an argument of a command, which need not be UTF-8."""
    return os.fsdecode(raw.replace(b"\0", b""))


# ---- texts -------------------------------------------------------------------------------------------


def check_text(space: SearchSpace, text: str) -> Architecture:
    """A text names an architecture, which comes back from its own text, or UserError says why not."""
    arch = space.parse(text)
    space.check(arch)
    assert space.parse(space.format(arch)) == arch
    return arch


def _architectures(name: str) -> Target:
    space = spaces.get(name)

    def seeds() -> list[bytes]:
        return [space.format(space.sample(random.Random(seed))).encode() for seed in range(8)]

    tokens = (b"|", b"+", b"~", b"-1", b"9" * 30, "٣".encode(), b" ", b"[", b"(", b",", b"0")
    return Target(f"architecture-{name}", lambda raw: check_text(space, _text(raw)), seeds, tokens=tokens)


_JSON = (
    b"NaN",
    b"1e999",
    b"[" * 2000,
    b"null",
    b"true",
    b'"\\ud800"',
    b"1.5",
    b"-1",
    b"{}",
    b"[]",
    b"9" * 400,
)


def _architecture_json(raw: bytes) -> None:
    arch = Architecture.from_json(_text(raw))
    assert Architecture.from_json(arch.to_json()) == arch


def _genotype_json(raw: bytes) -> None:
    genotype = Genotype.from_json(_text(raw))
    assert Genotype.from_json(genotype.to_json()) == genotype
    str(genotype)


def _genotypes() -> list[bytes]:
    edges = (("sep_conv_3x3", 0), ("skip_connect", 1)) * 4
    return [Genotype(edges, edges).to_json().encode(), b'{"normal": [], "reduce": []}']


def _template_json(raw: bytes) -> None:
    """A template comes back from its own text, and has problems or is a space."""
    found = template.from_json(_text(raw))
    assert template.from_json(template.to_json(found)) == found
    if not found.problems():
        space = template.TemplateSpace(template=found)
        check_text(space, space.format(space.sample(random.Random(0))))


def _templates() -> list[bytes]:
    return [template.to_json(make()).encode() for make in template.READY.values()]


def _constraints(raw: bytes) -> None:
    for bound in hardware_specs.parse_constraints(_text(raw).split(",")).values():
        assert bound == bound, "a bound of NaN"


def _objective(raw: bytes) -> None:
    for objective in objectives.checked(_text(raw).split(",")):
        objectives.split(objective)


@functools.cache
def _table() -> tables.Benchmark:
    import numpy as np

    path = folder() / "table.npz"
    archs = [_SPACE.format(_SPACE.sample(random.Random(seed))) for seed in range(5)]
    columns: dict[str, Any] = {f"cifar10/test_accuracy@{epochs}": np.arange(5.0) for epochs in (12, 200)}
    np.savez(path, arch_str=np.array(archs), **columns)
    return tables.open(path, _SPACE)


def _open_space(text: str) -> None:
    """A space by text; ``package.module:object`` is code that somebody chose to run."""
    if not _named.is_path(text):
        specs.open_space(text)


def _images(raw: bytes) -> None:
    """Images of the user's, by the text that names them."""
    if not data.is_own(_text(raw)):  # that is code which somebody chose to run
        data.load_images(_text(raw))


# Inputs run in forks of this process, each of which would spend seconds on this import by itself.
importlib.import_module("sklearn.datasets")

_SPECS = (
    b":",
    b"~",
    b"~~/",
    b"/",
    b"/dev/null",
    b"..",
    b"#",
    b"@",
    b"@12",
    b"npz:",
    b"table:",
    b"hw:",
    b"folder:",
)

_TEXTS = (
    Target(
        "architecture-json",
        _architecture_json,
        lambda: [_SPACE.sample(random.Random(0)).to_json().encode()],
        (ValueError,),
        _JSON,
    ),
    Target("genotype-json", _genotype_json, _genotypes, (ValueError,), _JSON),
    Target(
        "json",
        lambda raw: strict_json.loads(raw.decode()),
        lambda: [json.dumps({"a": [1, 2.5, None, True, "b\u1234"], "c": {"d": -1e-300}}).encode()],
        (ValueError,),
        _JSON,
    ),
    Target("template-json", _template_json, _templates, tokens=_JSON),
    Target(
        "constraints",
        _constraints,
        lambda: [b"flops<100e6", b"params<=1.5M,latency:raspi4<20", b"memory < 1k"],
        tokens=(b"<", b"<=", b"1e999", b"nan", b"-inf", b"-0", b"G", b":"),
    ),
    Target(
        "objectives", _objective, lambda: [b"zico", b"-latency,zico", b"zico,-params"], tokens=(b"-", b",")
    ),
    Target(
        "space-options",
        lambda raw: _open_space(_text(raw)),
        lambda: [b"nasbench201", b"nasbench201:channels=4,num_cells=1", b"darts_cnn:layers=8"],
        tokens=(b":", b"=", b",", b"nan", b"1e30", b"9" * 20, b"-1", b"true"),
    ),
    Target(
        "metric",
        lambda raw: _table().resolve(_text(raw)),
        lambda: [b"test_accuracy", b"test_accuracy@12", b"params"],
        tokens=(b"@", "²".encode(), b"-1", b"9" * 5000),
    ),
    Target(
        "table-spec",
        lambda raw: tables.load(_text(raw), _SPACE),
        lambda: [b"npz:a.npz#x", b"table:a.npz", b"hw:a.npz:raspi4", b"analog:x"],
        tokens=_SPECS,
    ),
    Target(
        "latency-spec",
        lambda raw: hardware.load(_text(raw), _SPACE),
        lambda: [b"hw:a.npz:raspi4", b"table:a.json", b"hw:a:b:c"],
        tokens=_SPECS,
    ),
    Target(
        "images-spec",
        _images,
        lambda: [b"digits:x", b"cifar10:a", b"npz:a.npz", b"folder:a"],
        tokens=_SPECS,
    ),
)


# ---- bytes inside of formats that have sums of their own ---------------------------------------------


def _record(raw: bytes) -> None:
    """A row of NAS-Bench-101 in a file whose checksums are right."""
    length = len(raw).to_bytes(8, "little")
    framed = [length, _masked(length), raw, _masked(raw)]
    _read(READERS["nasbench101-records"], b"".join(framed))


def _masked(content: bytes) -> bytes:
    return tfrecord.masked(tfrecord._crc32c()(content)).to_bytes(4, "little")


def _signed_table(raw: bytes) -> None:
    """A latency table with the right sum."""
    try:
        record = strict_json.signed(strict_json.loads(raw.decode()))
    except (ValueError, TypeError, AttributeError):  # no JSON, or no object
        return
    _read(READERS["unfinished-latency-table"], json.dumps(record).encode())


_INNER = (
    Target(
        "protobuf",
        lambda raw: list(protobuf.fields(raw)),
        lambda: [b"\x08\x96\x01\x12\x03abc"],
        (ValueError,),
    ),
    Target("nasbench101-record", _record, tokens=_JSON),
    Target(
        "signed-latency-table",
        _signed_table,
        tokens=_JSON,
    ),
)


# ---- files -------------------------------------------------------------------------------------------


def _read(reader: Reader, raw: bytes) -> None:
    path = folder() / str(id(reader)) / reader.filename  # with no files of other readers beside it
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}?*"):  # a journal of the input before
        left.unlink()
    path.write_bytes(raw)
    reader.read(path)


def _file(name: str, reader: Reader) -> Target:
    name_ = Path(reader.filename).name
    return Target(name, functools.partial(_read, reader), filename=name_)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *map(_architectures, spaces.names()),
        *_TEXTS,
        *_INNER,
        *(_file(name, reader) for name, reader in READERS.items() if reader.alone),
    )
}
"""By name."""
