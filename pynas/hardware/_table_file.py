"""The file that holds a latency table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pynas import spaces
from pynas._atomic import replacing
from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.hardware._fit import Correction
from pynas.hardware.latency_table import LatencyTable, Measured, OperatorTiming
from pynas.spaces import SearchSpace
from pynas.spaces._identity import constructor_options

FORMAT, VERSION = "pynas latency table", 1


def write(table: LatencyTable, path: Path) -> Path:
    """Write JSON beside ``path`` and move it there: a reader sees the old file or the new one."""
    correction = table.correction
    record = {
        "format": FORMAT,
        "version": VERSION,
        "complete": table.complete,
        "device": table.device,
        "space": _identity(table.space),
        "settings": table.settings,
        "machine": table.machine,
        "correction": [correction.slope, correction.per_operator, correction.constant],
        "operators": {key: timing.rounds for key, timing in table.operators.items()},
        "networks": [
            {"decisions": arch.decisions, "use": net.use, "rounds": net.rounds}
            for arch, net in table.networks.items()
        ],
    }
    text = json.dumps(record, indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
    return path


def read(cls: type[LatencyTable], path: Path, space: SearchSpace | None, partial: bool) -> LatencyTable:
    """Inverse of :func:`write`; everything is checked."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(f"{path}: not a latency table; 'pynas hardware build' makes one")
        if record["version"] != VERSION:
            raise UserError(f"{path}: version {record['version']} of the format; this is {VERSION}")
        table = _table(cls, record, space, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; 'pynas hardware build' makes one") from None
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: not a readable latency table: {error!r}") from error
    if not table.complete and not partial:
        raise UserError(f"{path}: its build was cut off; the same 'pynas hardware build' again continues it")
    return table


def _table(
    cls: type[LatencyTable], record: Mapping[str, Any], space: SearchSpace | None, path: Path
) -> LatencyTable:
    known = record["space"]
    chosen = space if space is not None else spaces.get(known["name"], **known["options"])
    if known != _identity(chosen):
        raise UserError(f"{path}: a table of {known['name']} {known['options']}, not of this space")
    table = cls(chosen, str(record["device"]), record["settings"], record["machine"])
    table.complete = bool(record["complete"])
    table.correction = Correction(*map(float, record["correction"]))
    for key, rounds in record["operators"].items():
        timings = [(float(ms), float(low), float(high), int(runs)) for ms, low, high, runs in rounds]
        table.operators[key] = OperatorTiming(timings)
        _check_times(path, key, [t[0] for t in timings], table.complete)
    for net in record["networks"]:
        arch = Architecture(known["name"], tuple(net["decisions"]))
        chosen.check(arch)
        table.networks[arch] = Measured(net["use"], [float(ms) for ms in net["rounds"]])
        _check_times(path, f"network {arch.decisions}", table.networks[arch].rounds, table.complete)
    return table


def _check_times(path: Path, what: str, times: list[float], complete: bool) -> None:
    if complete and not times:
        raise UserError(f"{path}: there is no time of {what}")
    for ms in times:
        if not (math.isfinite(ms) and ms > 0):
            raise UserError(f"{path}: the time of {what} is {ms} ms, not a positive finite number")


def _identity(space: SearchSpace) -> dict[str, Any]:
    return {"name": space.name, "options": constructor_options(space)}
