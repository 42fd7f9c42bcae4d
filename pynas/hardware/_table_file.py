"""The file that holds a latency table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pynas import spaces
from pynas._errors import UserError
from pynas._io import strict_json
from pynas._io.atomic import replacing
from pynas._io.files import shortened
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.hardware._fit import Correction
from pynas.hardware._timings import Measured, OperatorTiming
from pynas.hardware.latency_table import LatencyTable
from pynas.spaces import SearchSpace
from pynas.spaces.identity import constructor_options, identity, recorded_options

FORMAT, VERSION = "pynas latency table", 3

_FIELDS = {"format", "version", "complete", "device", "space", "settings", "machine"}
_FIELDS |= {"correction", "operators", "networks"}
_ADDED = {2: {strict_json.SUM}, 3: {strict_json.SUM, "doubts"}}
_TASK = frozenset(("num_classes", "in_channels", "image_size", "batch", "prune"))
_PUBLISHED = frozenset(("num_classes", "image_size"))  # None stands for what the space's figures are about
_SETTINGS: dict[str, type[Any]] = {
    "device": str,
    "dtype": str,
    "channels_last": bool,
    "threads": int,
    "rounds": int,
    "seconds": float,
    "seed": int,
    "fit_networks": int,
    "held_out": int,
}
_MOST_MS = 1e9  # eleven days; no operator, network or correction takes longer
_MOST = 2**31 - 1  # upper bound of counts: images, pixels, classes, samples


def write(table: LatencyTable, path: Path) -> Path:
    """Write JSON atomically: a reader of ``path`` sees the old file or the new one.

    Raises:
        UserError: It cannot be written, or :func:`read` would refuse the table.
    """
    correction = table.correction
    record = {
        "format": FORMAT,
        "version": VERSION,
        "complete": table.complete,
        "device": table.device,
        "space": {"name": table.space.name, "options": identity(table.space)},
        "settings": {**table.settings, "runtime": table.runtime},
        "machine": table.machine,
        "doubts": table.doubts if table.complete else (),
        "correction": [correction.slope, correction.per_operator, correction.constant],
        "operators": {key: timing.rounds for key, timing in table.operators.items()},
        "networks": [
            {"decisions": arch.decisions, "use": net.use, "rounds": net.rounds}
            for arch, net in table.networks.items()
        ],
    }
    try:
        text = json.dumps(strict_json.signed(record), indent=1, allow_nan=False)
        _table(LatencyTable, json.loads(text), table.space)  # do not keep what could not be read again
    except ValueError as error:
        raise UserError(f"{path}: was not written: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    with replacing(path) as file:
        file.write(text.encode())
    return path


def read(cls: type[LatencyTable], path: Path, space: SearchSpace | None, partial: bool) -> LatencyTable:
    """Inverse of :func:`write`; checks everything.

    It also reads files of version 1, which have no checksum, so that a changed digit of a time may go
    unnoticed; and of version 2, which are all of torch and do not say what speaks against them.
    """
    record = strict_json.read(path, "a latency table", hint="; 'pynas hardware build' makes one")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path}: not a latency table; 'pynas hardware build' makes one")
    version = record.get("version")
    if version not in (1, *_ADDED) or type(version) is not int:
        raise UserError(f"{path}: version {shortened(version)} of the format; this is {VERSION}")
    try:
        if record.keys() != _FIELDS | _ADDED.get(version, set()):
            raise ValueError("its fields are not those of a latency table")
        if version > 1:
            strict_json.check_sum(record)
        table = _table(cls, record, space)
    except ValueError as error:
        what = "" if isinstance(error, _OtherSpaceError) else "damaged: "
        raise UserError(f"{path}: {what}{error}") from error
    if not table.complete and not partial:
        raise UserError(
            f"{path}: its build was interrupted; repeat the same 'pynas hardware build' to resume"
        )
    return table


class _OtherSpaceError(ValueError):
    """The table is intact but of another space than requested, or of an unknown one."""


def _table(cls: type[LatencyTable], record: Mapping[str, Any], space: SearchSpace | None) -> LatencyTable:
    complete = _is(bool, record["complete"], "complete")
    chosen = _space(record["space"], space, record["version"])
    machine = _is(dict, record["machine"], "its machine")
    settings = _is(dict, record["settings"], "its settings")
    _is(dict, machine.get("versions", {}), "its versions")
    _check_settings(settings)
    table = cls(chosen, _is(str, record["device"], "its device"), settings, machine)
    table.complete = complete
    if record["version"] > 2:
        _is(str, settings.get("runtime"), "its runtime")
        doubts = [_is(str, doubt, "a doubt") for doubt in _is(list, record["doubts"], "its doubts")]
        table._doubts = tuple(doubts) if complete else None
    table.correction = _correction(record["correction"])
    most = settings["rounds"]
    for key, rounds in _is(dict, record["operators"], "its operators").items():
        what = f"operator {shortened(key)}"
        timings = [_timing(timing, what) for timing in _rounds(rounds, what, most, complete)]
        table.operators[key] = OperatorTiming(timings)
    for number, network in enumerate(_is(list, record["networks"], "its networks")):
        what = f"network {number}"
        if _is(dict, network, what).keys() != {"decisions", "use", "rounds"}:
            raise ValueError(f"{what} lacks decisions, use or rounds")
        decisions = [_is(int, d, f"a decision of {what}") for d in _is(list, network["decisions"], what)]
        arch = Architecture(chosen.name, tuple(decisions))
        chosen.check(arch)
        if arch in table.networks:
            raise ValueError(f"{what} comes twice")
        if network["use"] not in ("fit", "held out"):
            raise ValueError(
                f"the use of {what} is {shortened(repr(network['use']))}, not 'fit' or 'held out'"
            )
        times = [_ms(ms, what) for ms in _rounds(network["rounds"], what, most, complete)]
        table.networks[arch] = Measured(network["use"], times)
    uses = [network.use for network in table.networks.values()]
    if uses.count("fit") > settings["fit_networks"] or uses.count("held out") > settings["held_out"]:
        raise ValueError("it has more networks than its settings say")
    return table


def _space(known: Any, space: SearchSpace | None, version: int) -> SearchSpace:
    """The given space, or the one that the table names; an error if the table is of another space."""
    if _is(dict, known, "its space").keys() != {"name", "options"}:
        raise ValueError("its space does not have a name and options")
    name = _is(str, known["name"], "its space's name")
    options = _is(dict, known["options"], "its space's options")
    if space is None:
        if name not in spaces.names():
            raise _OtherSpaceError(
                f"a table of the space {shortened(name)}, which is not known here; known: "
                f"{', '.join(spaces.names())}"
            )
        try:
            space = spaces.get(name, **recorded_options(options))
        except (TypeError, ValueError) as error:
            raise _OtherSpaceError(
                f"a table of {name} with options that it does not take: {shortened(error)}"
            ) from None
    here = constructor_options(space) if version == 1 else identity(space)
    if (name, options) != (space.name, json.loads(json.dumps(here))):
        raise _OtherSpaceError(f"a table of {name} {shortened(recorded_options(options))}, not of this space")
    return space


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Check the settings that predictions, displays and resumed builds use."""
    missing = {"task", *_SETTINGS} - settings.keys()
    if missing:
        raise ValueError(f"its settings lack {', '.join(sorted(missing))}")
    for name, kind in _SETTINGS.items():
        if kind is float:
            _number(settings[name], f"its {name}")
        else:
            _is(kind, settings[name], f"its {name}")
    for name, least in (("threads", 1), ("rounds", 1), ("fit_networks", 0), ("held_out", 0)):
        _count(settings[name], f"its {name}", least)
    task = _is(dict, settings["task"], "its task")
    if task.keys() != _TASK:
        raise ValueError(f"its task does not have {', '.join(sorted(_TASK))}")
    _is(bool, task["prune"], "its prune")
    for name in _TASK - {"prune"}:
        if task[name] is not None or name not in _PUBLISHED:
            _count(task[name], f"its {name}")


def _correction(numbers: Any) -> Correction:
    found = [_number(value, "its correction") for value in _is(list, numbers, "its correction")]
    if len(found) != 3 or not all(0 <= value <= _MOST_MS for value in found) or not any(found):
        raise ValueError(
            f"its correction is {shortened(found)}, not three numbers of at least 0, one above 0"
        )
    return Correction(*found)


def _rounds(rounds: Any, what: str, most: int, complete: bool) -> list[Any]:
    """The rounds of one timing: a complete table has all of them, an interrupted one not too many."""
    count = len(_is(list, rounds, f"rounds of {what}"))
    if complete and not count:
        raise ValueError(f"there is no time of {what}")
    if count > most or (complete and count < most):
        raise ValueError(f"{what} has timings of {counted(count, 'round')}, its settings say {most:,}")
    return list(rounds)


def _timing(timing: Any, what: str) -> tuple[float, float, float, int]:
    if len(_is(list, timing, f"a time of {what}")) != 4:
        raise ValueError(f"a time of {what} is not median, 20th and 80th percentile, and samples")
    ms, low, high = (_ms(value, what) for value in timing[:3])
    return ms, low, high, _count(timing[3], f"the samples of {what}")


def _ms(value: Any, what: str) -> float:
    found = _number(value, f"the time of {what}")
    if not 0 < found <= _MOST_MS:
        raise ValueError(f"the time of {what} is {found}, not a positive finite number")
    return found


def _count(value: Any, what: str, least: int = 1) -> int:
    if not least <= _is(int, value, what) <= _MOST:
        raise ValueError(f"{what} is {shortened(value)}, expected {least} to {_MOST}")
    return int(value)


def _number(value: Any, what: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{what} is {shortened(repr(value))}, not a number")
    return float(value)


def _is(kind: type[Any], value: Any, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what} is {shortened(repr(value))}, expected {_KINDS[kind]}")
    return value


_KINDS = {bool: "true or false", dict: "an object", int: "an integer", list: "a list", str: "a text"}
