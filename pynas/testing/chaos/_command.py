"""The command."""

from __future__ import annotations

import runpy
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pynas._errors import UserError
from pynas.cli import console, flags
from pynas.testing.chaos._campaign import Campaign
from pynas.testing.chaos._faults import FAULTS
from pynas.testing.chaos._jobs import JOBS, Job
from pynas.testing.chaos._place import place
from pynas.testing.chaos._results import Result, print_results, record
from pynas.testing.chaos._start import Copies, Python

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
_PROGRAM = "python -m pynas.testing.chaos"


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(help="Faults over all jobs.", min=1)] = 100,
    strategy: Annotated[str, typer.Option(help="Only searches with this strategy, or 'all'.")] = "all",
    job: Annotated[
        list[str] | None, typer.Option(help="Only this job; repeatable. --list shows them.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Only faults of this kind; repeatable. --list shows them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the kinds and moments of faults.")] = 0,
    seconds: Annotated[float | None, typer.Option(help="No faults after so many seconds.", min=0)] = None,
    load: Annotated[
        Path | None,
        typer.Option(
            help="A Python file to run first in every process, such as one that registers a strategy."
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder for evidence of failures; default: a temporary one."),
    ] = None,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies",
            help="Start processes as copies of one that has loaded its modules: faster, "
            "but without faults during imports, and with the same hash seed for all.",
        ),
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List jobs and kinds of faults.")] = False,
    json: flags.Json = False,
) -> None:
    """Disturb searches, trainings and other long jobs, and compare their results with undisturbed ones.

    Exit code 1 if anything differs; prints the command that reproduces it.

    Examples:
      python -m pynas.testing.chaos --kills 100 --strategy all
      python -m pynas.testing.chaos --job supernet-uniform --fault kill --fault power --kills 20 --seed 7
    """
    if load is not None:
        if not load.is_file():
            raise UserError(f"--load: no such file: {load}")
        runpy.run_path(str(load))
    jobs = JOBS()
    if list_:
        return _list(jobs.values(), json)
    chosen = _chosen(jobs, job, strategy)
    for name in fault or ():
        if name not in FAULTS:
            raise UserError(f"--fault: expected one of {', '.join(FAULTS)}, got {name!r}")
    faults = {name: FAULTS[name] for name in fault or FAULTS}
    shares = {each.name: kills // len(chosen) + (i < kills % len(chosen)) for i, each in enumerate(chosen)}
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    evidence = _Evidence(keep)
    results: list[Result] = []
    interrupted = False
    with (
        tempfile.TemporaryDirectory(prefix="pynas-chaos-") as name,
        console.progress(quiet=json) as bar,
    ):
        root, task = Path(name, "place"), bar.add_task("faults", total=kills, note="")
        root.mkdir()

        def on_fault(job: str, fault: str) -> None:
            bar.update(task, advance=1, note=f"{job}: {fault}")

        with place(root) as where:
            for each in chosen:
                if not shares[each.name] or time.monotonic() > deadline:
                    continue
                log = Path(name, "log")
                shutil.rmtree(log, ignore_errors=True)
                log.mkdir()
                starter = Copies() if copies else Python()
                bar.update(task, note=f"{each.name}: undisturbed")
                campaign = Campaign(
                    each,
                    where,
                    log,
                    faults,
                    starter=starter,
                    seed=seed,
                    load="" if load is None else str(load.absolute()),
                    keep=evidence.folder,
                    on_fault=on_fault,
                    deadline=deadline,
                )
                results.append(campaign.result)
                try:
                    campaign.run(shares[each.name])
                except KeyboardInterrupt:
                    interrupted = True
                    break
                finally:
                    starter.close()
    again = {
        r.job: _reproduction(r.job, shares[r.job], fault or (), seed, load, copies)
        for r in results
        if r.problems
    }
    if json:
        console.print_json([record(result) | {"again": again.get(result.job)} for result in results])
    else:
        print_results(results, again, len(chosen))
    if again:
        raise typer.Exit(1)
    if interrupted:  # what was found until then is printed
        raise typer.Exit(130)
    return None


def _chosen(jobs: Any, names: Sequence[str] | None, strategy: str) -> list[Job]:
    for name in names or ():
        if name not in jobs:
            raise UserError(f"--job: expected one of {', '.join(jobs)}, got {name!r}")
    chosen = [jobs[name] for name in dict.fromkeys(names or jobs)]
    if strategy != "all":
        known = sorted({each.strategy for each in jobs.values() if each.strategy})
        if strategy not in known:
            raise UserError(f"--strategy: expected all or one of {', '.join(known)}, got {strategy!r}")
        chosen = [each for each in chosen if each.strategy == strategy]
        if not chosen:
            raise UserError(
                f"--strategy {strategy}: none of the jobs {', '.join(names or ())} searches with it"
            )
    return chosen


class _Evidence:
    """Folders that are made when there is something to put into them."""

    def __init__(self, keep: Path | None) -> None:
        self._keep = keep

    def folder(self, job: str) -> Path:
        if self._keep is None:
            self._keep = Path(tempfile.mkdtemp(prefix="pynas-chaos-evidence-"))
        path = self._keep / job
        number = 2
        while path.exists():
            path, number = self._keep / f"{job}-{number}", number + 1
        path.mkdir(parents=True)
        return path


def _reproduction(
    job: str, kills: int, faults: Sequence[str], seed: int, load: Path | None, copies: bool
) -> str:
    options = ["--job", job, "--kills", str(kills), "--seed", str(seed)]
    for name in faults:
        options += ["--fault", name]
    if load is not None:
        options += ["--load", str(load)]
    if copies:
        options.append("--copies")
    return f"{_PROGRAM} {shlex.join(options)}"


def _list(jobs: Any, json: bool) -> None:
    if json:
        return console.print_json(
            {
                "jobs": {job.name: {"strategy": job.strategy, "workers": job.workers} for job in jobs},
                "faults": {name: fault.summary for name, fault in FAULTS.items()},
            }
        )
    console.print_table(
        "Jobs", ["job", "strategy", "workers"], [(j.name, j.strategy, j.workers) for j in jobs]
    )
    console.print_table("Faults", ["kind", "what happens"], [(n, f.summary) for n, f in FAULTS.items()])
    return None


def main() -> None:
    """Run the command; see ``python -m pynas.testing.chaos --help``."""
    try:
        app(prog_name=_PROGRAM)
    except UserError as error:
        print(f"chaos: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + 2)
