"""Records of what was measured: JSON files in ``results``, each replaced whole, and how figures are shown."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pynas._io.atomic import replacing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results"
WORK = ROOT / "build"  # what runs that were killed go on from


def write(path: Path, record: Any) -> None:
    """Replace ``path`` by ``record``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def kept(work: Path) -> list[dict[str, Any]]:
    """What :func:`keep` added to ``work``; half a line, from a kill, counts as none."""
    found = []
    for line in work.read_text(encoding="utf-8").splitlines() if work.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def keep(work: Path, one: dict[str, Any]) -> None:
    """Add a line of JSON."""
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.open("a", encoding="utf-8") as file:
        file.write(json.dumps(one) + "\n")


def once(folder: Path, what: str, setting: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` gave under this setting, now or in a run before this one, from a file in ``folder``."""
    digest = hashlib.sha256(json.dumps([what, setting]).encode()).hexdigest()[:16]
    path = folder / f"{what.replace(' ', '-').replace(',', '')}-{digest}.json"
    if not path.exists():
        write(path, make())
    return json.loads(path.read_text())


def spread(values: Sequence[float], digits: int) -> str:
    """``mean [least, largest]``, or the one value that all are."""
    low, mean, high = (f"{f(values):,.{digits}f}" for f in (min, statistics.fmean, max))
    return mean if low == high else f"{mean} [{low}, {high}]"
