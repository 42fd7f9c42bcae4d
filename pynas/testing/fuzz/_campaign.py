"""All targets in turn, and what is kept of them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pynas._errors import UserError
from pynas.testing._sandbox import skeleton
from pynas.testing.fuzz import _guided, _random, _targets
from pynas.testing.fuzz._random import failures_of
from pynas.testing.fuzz._targets import TARGETS, Target

_MOST = 5  # failures of a target, after which the next one has its turn
_SMALLER = 200  # tries to make an input smaller
_LARGEST = 20_000  # bytes of an input that is kept


@dataclass(frozen=True)
class Failure:
    """An input that a target did not read as it should.

    Attributes:
        target: Its name.
        reason: What came of it.
        path: Where the input is kept.
    """

    target: str
    reason: str
    path: Path


def fuzz(
    seconds: float,
    only: Sequence[str] = (),
    *,
    corpus: Path,
    seed: int = 0,
    guided: bool | None = None,
    on_target: Callable[[str, int, int], None] = lambda name, inputs, failures: None,
) -> list[Failure]:
    """Look for inputs that fail, and keep them.

    Args:
        seconds: For all targets together.
        only: Names of targets, or the beginnings of names; all if empty.
        corpus: The folder of inputs that are kept, in it one of each target.
        seed: Of the changes.
        guided: Whether to use atheris; by default where it is installed.
        on_target: Called after each with its name, how many inputs it read, and how many failed.

    Raises:
        UserError: There is no such target, or no atheris.
    """
    chosen = selected(only)
    if guided and not _guided.available():
        raise UserError("--engine atheris: it is not installed; pip install atheris, or take random")
    search = _guided.search if guided or (guided is None and _guided.available()) else _random.search
    found: dict[Path, Failure] = {}
    with scratch():
        for target in chosen:
            begin = inputs_of(target, corpus)
            failing = failures_of(target, begin)
            fine = [raw for raw in begin if raw not in failing]
            more, count = search(target, fine, seconds / len(chosen), seed, _MOST)
            for raw, reason in (failing | more).items():
                path = _kept(target, raw, reason, corpus)
                found[path] = Failure(target.name, reason, path)
            on_target(target.name, count, len(failing | more))
    return list(found.values())


def replay(target: Target, inputs: Sequence[bytes]) -> dict[bytes, str]:
    """Which of the inputs fail, and how."""
    with scratch():
        return failures_of(target, inputs)


def selected(names: Sequence[str]) -> list[Target]:
    """The targets whose names are, or begin with, one of ``names``; all if there are none."""
    for name in names:
        if not any(known.startswith(name) for known in TARGETS):
            raise UserError(f"--only: no target {name!r}; known: {', '.join(TARGETS)}")
    return [t for t in TARGETS.values() if not names or any(t.name.startswith(name) for name in names)]


def inputs_of(target: Target, corpus: Path) -> list[bytes]:
    """Seeds, and what is kept in the corpus."""
    kept = sorted(path for path in (corpus / target.name).glob("*") if path.is_file())
    return list(dict.fromkeys([*target.seeds(), *(path.read_bytes() for path in kept)]))


@contextmanager
def scratch() -> Iterator[None]:
    """A folder in memory for the files that are read, gone at the end."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="pynas-fuzz-") as name:
        before, tempfile.tempdir = tempfile.tempdir, name
        _targets.folder.cache_clear()
        try:
            _targets.folder()  # before processes are forked, so that all of them use the same
            yield
        finally:
            tempfile.tempdir = before
            shutil.rmtree(_targets.folder(), ignore_errors=True)
            _targets.folder.cache_clear()
            _targets._table.cache_clear()


def _kept(target: Target, raw: bytes, reason: str, corpus: Path) -> Path:
    """Make an input smaller and keep it; the original where it is no longer than a few."""
    small = _smaller(target, raw, skeleton(reason))[:_LARGEST]
    path = corpus / target.name / hashlib.sha256(small).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small)
    return path


def _smaller(target: Target, raw: bytes, way: str) -> bytes:
    """Without the pieces that are not needed to fail in that way."""
    if way.startswith("it took"):  # it would take hundreds of times as long
        return raw
    size, tries = max(1, len(raw) // 2), 0
    while size and tries < _SMALLER:
        pieces = [raw[:at] + raw[at + size :] for at in range(0, len(raw), size)][: _SMALLER - tries]
        tries += len(pieces)
        failing = failures_of(target, pieces) if pieces else {}
        shorter = next((piece for piece in pieces if skeleton(failing.get(piece, "")) == way), None)
        if shorter is None:
            size //= 2
        else:
            raw = shorter
    return raw
