"""What jobs leave behind, as texts by name, for comparison."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pynas._errors import UserError
from pynas._plural import counted

Outcome = Mapping[str, str]
"""What was found, by the name of a trial, a tensor, an array, a time."""


@dataclass
class Difference:
    """How what was found differs from what was expected, by name."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.different)

    def __str__(self) -> str:
        parts = (("lost", self.lost), ("doubled", self.doubled), ("different", self.different))
        return "; ".join(f"{what}: {_few(names)}" for what, names in parts if names)


def compare(found: Outcome, expected: Outcome, *, unfinished: bool = False) -> Difference:
    """What is missing, too much or different; of an unfinished one nothing is missing."""
    difference = Difference()
    if not unfinished:
        difference.lost = [name for name in expected if name not in found]
    difference.doubled = [name for name in found if name not in expected]
    for name in found.keys() & expected.keys():
        if found[name] != expected[name]:
            difference.different.append(f"{name} is {found[name]}, not {expected[name]}")
    difference.different.sort()
    return difference


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def trials(store: Path) -> dict[str, str]:
    """The trials of the only run of a store; none where it has not begun.

    A copy is read: whoever opens a store last tidies up after a process that died.
    """
    from pynas.store import Store

    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, store.name)
        for suffix in ("", "-wal"):
            part = store.with_name(store.name + suffix)
            if part.exists():
                shutil.copyfile(part, copy.with_name(part.name))
        if not copy.exists():
            return {}
        try:
            with Store(copy, read_only=True) as opened:
                runs = opened.runs()
                kept = opened.trials(runs[0]) if runs else ()
        except UserError as error:
            if "not a store" in str(error):  # killed before it had tables
                return {}
            raise
    found: dict[str, str] = {}
    for place, trial in enumerate(kept):
        name = f"trial {trial.number}" + (" again" if f"trial {trial.number}" in found else "")
        if place != trial.number and name not in found:
            name += f" at place {place}"
        evaluation = trial.evaluation
        facts = [trial.architecture.to_json(), evaluation.status.value, evaluation.message]
        found[name] = " ".join([*facts, *map(_numbers, (evaluation.scores, evaluation.metrics))])
    return found


def _numbers(values: Mapping[str, float]) -> str:
    return repr({name: value.hex() for name, value in sorted(values.items())})


def checkpoints(folder: Path) -> dict[str, str]:
    """The last checkpoint's tensors and record; UserError if one that has its name is not whole."""
    paths = sorted(folder.glob("step-*.safetensors")) if folder.is_dir() else []
    found: dict[str, str] = {}
    for path in paths:
        found = {"the last checkpoint": path.name, **tensors(path)}
    return found


def tensors(path: Path) -> dict[str, str]:
    """The tensors of a file of weights by their sum, and what else its header says."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, str] = {}
    try:
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118
                array = file.get_tensor(name)
                found[name] = f"{array.dtype} {list(array.shape)} {_sum(array.tobytes())}"
            found["header"] = _sum(json.dumps(file.metadata() or {}, sort_keys=True).encode())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path.name} is not whole: {error}") from error
    return found


def times(path: Path) -> dict[str, str]:
    """The times in a latency table, one by one; of a complete one its correction too."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path.name} is not whole: {error}") from error
    found: dict[str, str] = {}
    items = [*record["operators"].items(), *((str(n["decisions"]), n["rounds"]) for n in record["networks"])]
    for name, rounds in items:
        found |= {f"{name}, round {number}": repr(time) for number, time in enumerate(rounds)}
    if record["complete"]:
        found["correction"] = repr(record["correction"])
    return found


def page(path: Path) -> str | None:
    """A sum over a page; None where there is no page."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not whole: {error}") from error
    if not (text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")):
        raise UserError(f"{path.name} is not whole: no end after {counted(len(text), 'character')}")
    return _sum(text.encode())


def arrays(path: Path) -> dict[str, str]:
    """The arrays of a NumPy archive by their sum; none where there is no file."""
    import numpy as np

    if not path.exists():
        return {}
    try:
        with path.open("rb") as file, np.load(file) as archive:
            return {name: _sum(archive[name].tobytes()) for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise UserError(f"{path.name} is not whole: {error}") from error


def leftovers(folder: Path) -> list[str]:
    """Files that were never finished."""
    return sorted(str(path.relative_to(folder)) for path in _files(folder) if path.suffix == ".partial")


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
