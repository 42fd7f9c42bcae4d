"""Every file format, damaged at many places: read, or refused with a line that names the file."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pynas._errors import UserError
from pynas.testing import _sandbox
from pynas.testing.fuzz._readers import READERS
from tests.damage import STRANGE, Format, check, damaged, findings, places, same
from tests.file_formats import FORMATS

pytestmark = pytest.mark.slow


def test_no_reader_is_left_out() -> None:
    assert [form.name for form in FORMATS] == list(READERS)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_damaged(form: Format) -> None:
    check(form)


# ---- the harness itself ------------------------------------------------------------------------------


def write(path: Path) -> None:
    path.write_bytes(b"content " * 5)


def strict(path: Path) -> bytes:
    """A reader without a fault."""
    raw = path.read_bytes() if path.is_file() and path.stat().st_size < 100 else b""
    if raw != b"content " * 5:
        raise UserError(f"{path}: damaged")
    return raw


def test_a_reader_without_faults() -> None:
    assert check(Format("strict", write, strict, checked=same), 10) == 4 * 10 + len(STRANGE)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda path: {}["a\nb"], r"KeyError: 'a\\nb' at "),
        (lambda path: os.abort(), "the process died of SIGABRT"),
        (lambda path: os._exit(3), "the process ended with code 3"),
        (lambda path: sum(iter(int, 1)), "it took more than 0.2 s"),
        (lambda path: time.sleep(60), "it took more than 0.2 s, waiting"),
        (lambda path: bytearray(1 << 40), "MemoryError"),
        (lambda path: refuse("damaged"), "the message does not name the file"),
        (lambda path: refuse(f"{path}: a\nb"), "the message is not one line of printable text"),
        (lambda path: refuse(f"{path}: {'x' * 5000}"), "the message has 5,0"),
        (lambda path: warnings.warn("odd", stacklevel=1), "UserWarning: odd"),
        (lambda path: path.read_bytes()[:8], "it was read, with another content than was written"),
    ],
)
def test_what_counts_as_a_fault(
    fault: Callable[[Path], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sandbox, "SECONDS", 0.2)
    monkeypatch.setattr(_sandbox, "PATIENCE", 1.0)

    def read(path: Path) -> object:
        raw = path.read_bytes()
        return fault(path) if raw == b"content " * 2 else raw if raw == b"content " * 5 else strict(path)

    form = Format("faulty", write, read, checked=same, strange=())
    found, variants = findings(form, 40)  # all places: one of the cuts leaves two words
    assert variants == 4 * 40
    assert [(finding.kind, finding.place) for finding in found] == [("cut", 16)]
    assert found[0].reason.startswith(reason)
    assert damaged(b"content " * 5, "cut", 16) == b"content " * 2


def test_memory_that_an_error_hides() -> None:
    def read(path: Path) -> object:
        try:
            return bytearray(path.stat().st_size << 40) if path.stat().st_size < 40 else path.read_bytes()
        except MemoryError as error:
            raise UserError(f"{path}: damaged") from error

    found, _ = findings(Format("greedy", write, read, strange=()), 3)
    assert {finding.reason.partition(" at ")[0] for finding in found} == {
        f"it asked for more than {_sandbox.MEMORY >> 20} MiB of memory"
    }


def refuse(message: str) -> None:
    raise UserError(message)


def test_places_are_spread() -> None:
    chosen = places(10_000, 100, "flip")
    assert len(chosen) == 100
    assert (chosen[0], chosen[-1]) == (0, 9999)
    assert max(b - a for a, b in itertools.pairwise(chosen)) <= 200
    assert list(places(50, 100, "flip")) == list(range(50))
    assert chosen != places(10_000, 100, "cut")
