"""The command."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pynas._errors import UserError
from pynas._plural import counted
from pynas.testing.fuzz import _campaign, _guided
from pynas.testing.fuzz._campaign import fuzz, replay
from pynas.testing.fuzz._targets import TARGETS

_PROGRAM = "python -m pynas.testing.fuzz"
_OPERATORS = "operators"  # calls, not inputs: pynas.testing.operator_fuzz
_SHARE = 0.2  # of the time
_CALLS = 500  # of operators, between two looks at the clock
_IN_CHECKOUT = Path(__file__).resolve().parents[3] / "tests" / "fuzz" / "corpus"


def main() -> int:
    """Print each failure and how to reproduce it; exit code 1 for failures, 2 for bad arguments."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Fuzz every reader with damaged and random input."
    )
    option = parser.add_argument
    option("--seconds", type=float, default=60.0, help="for all targets together")
    option("--only", action="append", default=[], metavar="NAME", help="a target, or a prefix of targets")
    option("--corpus", type=Path, help="folder of inputs to keep")
    option("--seed", type=int, default=0, help="seed of the mutations")
    option("--engine", choices=("atheris", "random"), help="default: atheris if installed")
    option("--list", action="store_true", help="list the targets")
    option("--json", action="store_true", help="print JSON, for machines")
    option("--replay", nargs=2, metavar=("TARGET", "FILE"), help="read one input in this process")
    chosen = parser.parse_args()
    try:
        return _run(chosen)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _run(chosen: argparse.Namespace) -> int:
    if chosen.list:
        print("\n".join((*TARGETS, _OPERATORS)))
        return 0
    if chosen.replay:
        return _replay(*chosen.replay)
    if not chosen.seconds > 0:
        raise UserError(f"--seconds: expected a positive number, got {chosen.seconds}")
    corpus = chosen.corpus or (_IN_CHECKOUT if _IN_CHECKOUT.is_dir() else Path("fuzz-corpus"))
    guided = None if chosen.engine is None else chosen.engine == "atheris"
    engine = "atheris" if guided or (guided is None and _guided.available()) else "random"
    say = (lambda *_, **__: None) if chosen.json else print
    say(f"engine: {engine}")
    only = [name for name in chosen.only if name != _OPERATORS]
    if not chosen.only:
        share = _SHARE
    elif _OPERATORS in chosen.only:
        share = _SHARE if only else 1.0
    else:
        share = 0.0
    record = _Record(engine)

    def on_target(name: str, inputs: int, failed: int) -> None:
        record.inputs[name] = inputs
        say(f"{name}: {counted(inputs, 'input')}, {counted(failed, 'failure')}", flush=True)

    if share < 1:
        seconds = chosen.seconds * (1 - share)
        for failure in fuzz(
            seconds, only, corpus=corpus, seed=chosen.seed, guided=guided, on_target=on_target
        ):
            again = shlex.join(["--replay", failure.target, str(failure.path)])
            record.faults.append(f"{failure.target}: {failure.reason}\n    {_PROGRAM} {again}")
    if share:
        _operators(chosen.seconds * share, chosen.seed, record)
        say(f"{_OPERATORS}: {counted(record.calls, 'call')}")
    if chosen.json:
        targets = len(record.inputs)
        print(json.dumps({**vars(record), "inputs": sum(record.inputs.values()), "targets": targets}))
    for fault in record.faults:
        say(fault)
    return 1 if record.faults else 0


@dataclass
class _Record:
    """What was done and found: inputs by target, calls of operators, faults with what repeats each."""

    engine: str
    inputs: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    faults: list[str] = field(default_factory=list)


def _operators(seconds: float, seed: int, record: _Record) -> None:
    """Call compiled operators, as often as there is time for."""
    from pynas.testing import operator_fuzz

    end = time.monotonic() + seconds
    while record.calls == 0 or time.monotonic() < end:
        report = operator_fuzz.fuzz(_CALLS, seed, first=record.calls)
        for fault in report.faults:
            text = f"{_OPERATORS}: {fault.op}: {fault.reason}\n    {fault.call}"
            if fault.index >= 0:
                repeated = f"--seed {seed} --first {fault.index} --calls 1"
                text += f"\n    python -m pynas.testing.operator_fuzz {repeated}"
            record.faults.append(text)
        record.calls += _CALLS


def _replay(name: str, file: str) -> int:
    """First in a process of its own, which may die; then here, for the traceback."""
    if name not in TARGETS:
        raise UserError(f"--replay: no target {name!r}; known: {', '.join(TARGETS)}")
    target, raw = TARGETS[name], Path(file).read_bytes()
    reason = replay(target, [raw]).get(raw)
    print(f"{name}: {reason or 'as it should be'}")
    if reason and not reason.startswith(("it took", "the process")):
        with _campaign.scratch():
            target.run(raw)
    return 1 if reason else 0
