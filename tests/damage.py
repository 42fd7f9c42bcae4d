"""Damaged files: what a reader of files says to each of thousands of them.

A :class:`Format` names how a valid file is written and how it is read. :func:`check` damages that file at
many places and reads every variant. A reader may read it, or raise ``UserError`` with one printable line
that names the file. Anything else is a finding: another exception, a crash, more than two seconds, more
memory than the limit; where the format carries a sum (``checked``), also a content that is not the one
written.

Variants are read in forked processes, many in each, so that a crash or an endless loop costs one process and
is traced to its variant. The environment variable ``PYNAS_DAMAGE_PLACES`` says at how many places each kind
of damage is done: few in a test run, 2,000 in ``make evidence``. A variant depends on the file, kind and
place alone: :func:`damaged` makes it again.

Tests import this file as ``from tests.damage import Format, check``: pytest's importlib mode knows the folder
``tests`` as a package without an ``__init__.py``, wherever it is started.
"""

from __future__ import annotations

import dataclasses
import glob
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynas.testing._sandbox import in_child, skeleton, timed, verdict

PLACES = int(os.environ.get("PYNAS_DAMAGE_PLACES", "60"))  # of each kind of damage in each format

KINDS = ("flip", "cut", "repeat", "zero")
STRANGE = ("absent", "empty", "folder", "fifo", "endless", "null", "loop", "sparse", "unreadable")

_SPARSE = 8 << 30  # bytes of a file of holes
_BLOCK = 64  # bytes repeated or zeroed, at most
_MOST_SHOWN = 20  # kinds of findings in a message
_MOST_DEATHS = 10  # of processes, until a format is given up


@dataclass(frozen=True)
class Format:
    """A kind of file that is read.

    Attributes:
        name: For messages and test names.
        write: Writes a valid file, a small one: tens of kilobytes at most.
        read: Reads it. What it returns is looked at only if ``checked``.
        filename: What the file is called; with folders, as in ``cifar/data_batch_1``, when the reader takes
            the folder (``read`` gets the path of the file all the same).
        checked: Of a format with a sum, so that no damaged file may give another content: whether what was
            read is what was written, :func:`same`.
        names_file: Whether errors must name the file; False for readers that get its content alone.
        strange: Which of :data:`STRANGE` to put in the file's place too.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    filename: str = "file"
    checked: Callable[[object, object], bool] | None = None
    names_file: bool = True
    strange: tuple[str, ...] = STRANGE


@dataclass(frozen=True)
class Finding:
    """What is wrong with how one variant was read."""

    kind: str
    place: int | str
    reason: str


# ---- the variants ------------------------------------------------------------------------------------


def damaged(raw: bytes, kind: str, place: int) -> bytes:
    """``raw`` with one damage of ``kind`` at ``place``, always the same one."""
    rng = random.Random(f"{kind} {place} {len(raw)}")
    length = min(round(_BLOCK ** rng.random()), len(raw) - place)
    block = raw[place : place + length]
    if kind == "flip":
        bit = 1 << rng.randrange(8)
        changed = raw[place] ^ (bit if rng.random() < 0.5 else rng.randrange(1, 256))
        return raw[:place] + bytes([changed]) + raw[place + 1 :]
    if kind == "cut":
        return raw[:place]
    if kind == "repeat":
        return raw[: place + length] + block + raw[place + length :]
    assert kind == "zero", kind
    return raw[:place] + bytes(length) + raw[place + length :]


def places(size: int, count: int, kind: str) -> Sequence[int]:
    """``count`` places spread over ``size`` bytes, first and last among them; all if there are fewer."""
    if size <= count:
        return range(size)
    rng = random.Random(f"{kind} {size}")
    found = {rng.randrange(i * size // count, (i + 1) * size // count) for i in range(1, count - 1)}
    return sorted(found | {0, size - 1})


def _put(path: Path, raw: bytes, kind: str, place: int | str) -> bool:
    """Put a variant in the place of ``path``; False if it does not differ, or cannot be made here."""
    _clear(path)
    if isinstance(place, int):
        content = damaged(raw, kind, place)
        path.write_bytes(content)
        return content != raw
    if place == "empty":
        path.touch()
    elif place == "folder":
        path.mkdir()
    elif place == "fifo":
        os.mkfifo(path)
    elif place in ("endless", "null"):
        path.symlink_to("/dev/zero" if place == "endless" else "/dev/null")
    elif place == "loop":
        path.symlink_to(path.name)
    elif place == "sparse":
        with path.open("wb") as file:
            file.write(raw)
            file.truncate(_SPARSE)
    elif place == "unreadable":
        path.write_bytes(raw)
        path.chmod(0)
        return not os.access(path, os.R_OK)  # root reads everything
    return True


def _clear(path: Path) -> None:
    """Remove the file, and what a reader may have left beside it, such as a database's journal."""
    for there in path.parent.glob(f"{glob.escape(path.name)}*"):
        if there.is_dir() and not there.is_symlink():
            there.rmdir()
        else:
            there.unlink()


# ---- reading them ------------------------------------------------------------------------------------


def check(form: Format, count: int = PLACES) -> int:
    """Fail with what is wrong; otherwise the number of variants that were read.

    Raises:
        AssertionError: There are findings.
    """
    found, variants = findings(form, count)
    assert not found, f"{form.name}: {len(found)} of {variants} damaged files:\n{summary(found)}"
    return variants


def summary(found: Sequence[Finding]) -> str:
    """One of each kind of finding: what it is, how often, and which damage shows it."""
    alike: dict[str, list[Finding]] = {}
    for finding in found:
        alike.setdefault(skeleton(finding.reason), []).append(finding)
    lines = [
        f"  {group[0].reason}\n    {len(group)} times, such as {group[0].kind} at {group[0].place}"
        for group in sorted(alike.values(), key=len, reverse=True)
    ]
    more = [f"  and {len(lines) - _MOST_SHOWN} other kinds"] if len(lines) > _MOST_SHOWN else []
    return "\n".join(lines[:_MOST_SHOWN] + more)


def findings(form: Format, count: int = PLACES) -> tuple[list[Finding], int]:
    """What is wrong with how ``form`` reads damaged files, and how many of these there were."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="damage-") as name:
        path = Path(name) / form.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        form.write(path)
        raw = path.read_bytes()
        assert raw, f"{form.name}: its valid file is empty"
        whole = form.read(path)  # must be fine
        variants: list[tuple[str, int | str]] = [
            (kind, place) for kind in KINDS for place in places(len(raw), count, kind)
        ]
        variants += [("strange", place) for place in form.strange]
        found: list[Finding] = []
        begin = deaths = 0
        while begin < len(variants) and deaths < _MOST_DEATHS:
            done, reports, death = _run(form, path, raw, whole, variants[begin:])
            found += reports
            begin += done
            if death:
                found.append(Finding(*variants[begin], death))
                begin, deaths = begin + 1, deaths + 1
        if deaths == _MOST_DEATHS:
            found.append(Finding("all", begin, f"given up after {deaths} processes died"))
        _clear(path)
    return found, begin


def _run(
    form: Format, path: Path, raw: bytes, whole: object, variants: Sequence[tuple[str, int | str]]
) -> tuple[int, list[Finding], str]:
    """Read ``variants`` in one process: how many came to an end, findings, and what killed it if anything."""

    def read_all(write: Callable[[bytes], object]) -> None:
        for kind, place in variants:
            line = ""
            if _put(path, raw, kind, place):
                with timed():
                    line = _verdict(form, path, whole)
            write(line.encode(errors="replace") + b"\n")

    output, death = in_child(read_all)
    lines = output.decode(errors="replace").split("\n")[:-1]
    assert len(lines) <= len(variants), output.decode(errors="replace")
    found = [Finding(*variants[i], line) for i, line in enumerate(lines) if line]
    return len(lines), found, death if len(lines) < len(variants) else ""


def _verdict(form: Format, path: Path, whole: object) -> str:
    results: list[object] = []
    finding, _ = verdict(lambda: results.append(form.read(path)), name=path.name if form.names_file else "")
    if results and form.checked is not None and not form.checked(results[0], whole):
        return "it was read, with another content than was written"
    return finding


# ---- comparing contents ------------------------------------------------------------------------------


def same(a: object, b: object) -> bool:
    """Whether two contents are equal to the bit: tensors, arrays, NaN, and what is made of such."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))  # type: ignore[arg-type]
    if hasattr(a, "untyped_storage") or hasattr(a, "tobytes"):  # a tensor, an array
        return _bits(a) == _bits(b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)  # type: ignore[attr-defined,index]
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


def _bits(a: Any) -> tuple[Any, Any, bytes]:
    kind, shape = a.dtype, a.shape
    if hasattr(a, "untyped_storage"):
        a = a.detach().contiguous().flatten().view(sys.modules["torch"].uint8).numpy()
    return kind, shape, a.tobytes()
