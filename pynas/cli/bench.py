"""``pynas bench``: time the kernels against their baselines on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pynas._errors import UserError
from pynas._io.atomic import check_output
from pynas._plural import counted
from pynas.cli import console, flags

_COLUMNS = (
    "pynas ms, its ms: medians of all rounds (MiB where a case measures memory), ours and of the baseline",
    "roofline ms: what the peak above allows for this work, the least time possible",
    "best baseline: the fastest implementation in PyTorch; 'pynas bench CASE --json' has all of them",
    "ratio: pynas / baseline in the same round, below 1 is faster; 20-80 %: its percentiles over rounds",
    "must, aim: the ratio that a release may not exceed, and the one that the project works towards",
)


def bench(
    pattern: Annotated[
        str, typer.Argument(help="Only cases whose name contains this; 'list' lists them.")
    ] = "",
    seconds: Annotated[float, typer.Option(help="Time for the timed rounds of each case.", min=0.01)] = 2.0,
    slow: Annotated[bool, typer.Option("--slow", help="Also the cases that take minutes.")] = False,
    threads: flags.Threads = None,
    save: Annotated[
        Path | None, typer.Option(help="Append the records to this file, a JSON line each.")
    ] = None,
    seed: flags.Seed = 0,
    json: flags.Json = False,
) -> None:
    """Time the kernels against PyTorch baselines, alternating in one process; every result is checked.

    Example: pynas bench conv2d --seconds 5 --save benches/results/my-machine.jsonl
    """
    import torch

    from pynas.bench import CASES, Record, describe, measure, peak

    chosen = [CASES.get(name) for name in CASES.names() if pattern == "list" or pattern in name]
    if pattern == "list":
        if json:
            return console.print_json([case.name for case in chosen])
        for case in chosen:
            console.say(case.name)
        return None
    if save is not None:
        check_output(save, "--save", parents=True)
    if not chosen:
        raise UserError(f"no benchmark has {pattern!r} in its name; 'pynas bench list' lists them")
    skipped = [case for case in chosen if case.slow and not slow]
    chosen = [case for case in chosen if case not in skipped]
    if threads is not None:
        torch.set_num_threads(threads)
    machine, best = describe(), peak()
    records: list[Record] = []
    with console.progress(quiet=json) as bar:
        task = bar.add_task("benchmarks", total=len(chosen), note="")
        for case in chosen:
            bar.update(task, note=case.name)
            record = measure(case, seconds=seconds, seed=seed, peak=best, machine=machine)
            records.append(record)
            if save is not None:  # after each case: a long run that is cut off keeps what it has
                record.append_to(save)
            bar.advance(task)
    if json:
        return console.print_json([record.to_dict() for record in records])
    title = f"{machine['device']}, {counted(machine['threads'], 'thread')}, {machine['isa']}, "
    title += f"torch {machine['torch']}; peak {best[0] / 1e9:.0f} GFLOP/s, {best[1] / 1e9:.0f} GB/s"
    console.print_table(
        title,
        ["case", "pynas ms", "roofline ms", "best baseline", "its ms", "ratio", "20-80 %", "must", "aim"],
        [row for record in records for row in _rows(record)],
    )
    for line in _COLUMNS:
        console.say(line)
    if skipped:
        names = ", ".join(case.name for case in skipped)
        console.say(f"{counted(len(skipped), 'slow case')} left out (--slow): {names}")
    return None


def _rows(record: Any) -> list[list[object]]:
    """One row against the fastest baseline; one against each where the case has targets for several."""
    others = list(record.ratios) if record.targets else [record.best_other]
    return [_row(record, other, first=i == 0) for i, other in enumerate(others)]


def _row(record: Any, other: str | None, first: bool) -> list[object]:
    bound = record.floor_seconds
    low, ratio, high = record.ratios[other] if other else (None, None, None)
    must, aim = record.targets.get(other, (record.must, record.aim))
    ours = [
        record.case,
        round(record.timings["pynas"].p50 * 1e3, 3),
        round(bound * 1e3, 3) if bound else None,
    ]
    return [
        *(ours if first else [None] * 3),
        other,
        round(record.timings[other].p50 * 1e3, 3) if other else None,
        round(ratio, 3) if ratio is not None else None,
        f"{low:.2f}-{high:.2f}" if ratio is not None else None,
        must and round(must, 3),
        aim and round(aim, 3),
    ]
