"""The results of the jobs, and how to print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynas._plural import counted
from pynas.cli import console


@dataclass
class Result:
    """What came of a job.

    Attributes:
        job: Its name.
        faults: How many of each kind it had.
        missing: Why kinds of faults could not be had, by kind.
        processes: How often it was started.
        resumed: How often that was to go on.
        runs: How often it came to its end and was compared.
        compared: Trials, tensors, times compared at those ends.
        lost: Of these, those that were missing.
        doubled: Those that were too much.
        different: Those that differed.
        excused: Runs that were not compared: a trial had failed for want of memory, and said so.
        leftovers: Unfinished files that still lay there at an end.
        refusals: The lines with which it ended while a fault lasted, each after the kinds of faults.
        problems: All else that was wrong, in words; and what the three numbers above are about.
        evidence: The folder with what was found, if anything was wrong.
        seconds: How long all of it took.
    """

    job: str
    faults: Counter[str] = field(default_factory=Counter)
    missing: dict[str, str] = field(default_factory=dict)
    processes: int = 0
    resumed: int = 0
    runs: int = 0
    compared: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    excused: int = 0
    leftovers: int = 0
    refusals: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    evidence: Path | None = None
    seconds: float = 0.0


def record(result: Result) -> dict[str, Any]:
    """The result for machines."""
    evidence = None if result.evidence is None else str(result.evidence)
    return {**vars(result), "faults": dict(result.faults), "evidence": evidence}


def print_results(results: Sequence[Result], again: Mapping[str, str], count: int) -> None:
    """The results for people, of ``count`` jobs; ``again`` is what reproduces those that are wrong."""
    columns = ["job", "faults", "kinds", "processes", "resumed", "compared", "lost", "doubled", "different"]
    rows: list[list[object]] = []
    for result in results:
        kinds = " ".join(f"{name}:{number}" for name, number in sorted(result.faults.items()))
        numbers = (result.compared, result.lost, result.doubled, result.different)
        verdict = "WRONG" if result.problems else "same" if result.runs else "not disturbed"
        rows.append(
            [result.job, result.faults.total(), kinds, result.processes, result.resumed, *numbers, verdict]
        )
    total: Counter[str] = sum((result.faults for result in results), Counter())
    console.print_table(
        f"{counted(total.total(), 'fault')}, {len(results)} of {counted(count, 'job')}",
        [*columns, "verdict"],
        rows,
    )
    print("faults: " + ", ".join(f"{number} {name}" for name, number in total.most_common()))
    unseen = {name: why for r in results for name, why in r.missing.items() if name not in total}
    for name, why in unseen.items():
        print(f"no fault of the kind {name}: {why}")
    excused = sum(result.excused for result in results)
    if excused:
        print(f"not compared: {counted(excused, 'run')} in which a trial failed for lack of memory")
    left = sum(result.leftovers for result in results)
    if left:
        print(f"left at the end: {counted(left, 'unfinished file')} beside finished ones")
    for result in results:
        for problem in result.problems:
            print(f"\n{result.job}: {problem}\n  evidence: {result.evidence}\n  again: {again[result.job]}")
