"""``pynas search``: search for good architectures without training any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pynas._errors import UserError
from pynas._plural import counted
from pynas.cli import _evaluator, console, flags, hardware_specs, specs
from pynas.cli.hardware_specs import COSTS, parse_constraints
from pynas.store import check_location
from pynas.trial import Status, Trial

_MOST_ROWS = 20


def search(
    space: flags.Space = "nasbench201",
    strategy: flags.Strategy = "evolution",
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Proxy to maximise, -COST to minimise; repeatable. Costs: {COSTS}. Default: zico."
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Upper bound on a cost: 'flops<100e6', 'params<=1M', 'latency<20'; repeatable."),
    ] = None,
    latency: hardware_specs.Latency = None,
    budget: Annotated[int, typer.Option(help="Number of trials.", min=1)] = 100,
    images: flags.Images = None,
    image_size: flags.ImageSize = None,
    classes: flags.Classes = None,
    text: flags.Text = None,
    steps: flags.Steps = 35,
    batch: flags.Batch = None,
    table: flags.Table = None,
    metric: flags.Metric = None,
    dataset: flags.Dataset = None,
    precision: flags.Precision = "float32",
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    workers: Annotated[
        int,
        typer.Option(help="Processes that score at the same time, each with --threads threads.", min=1),
    ] = 1,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the strategy, such as population_size=20.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Keep trials in this SQLite file or database URL.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --store.")] = False,
    report: flags.OutputFile = None,
    inline: flags.Inline = False,
    csv: Annotated[Path | None, typer.Option(help="Write all trials to this CSV file.")] = None,
    json: flags.Json = False,
) -> None:
    """Search a space with zero-shot proxies; nothing is trained.

    Examples:
      pynas search --budget 60 --table analog --report report.html
      pynas search --constraint 'flops<60e6' --store runs.db --budget 500 && pynas report runs.db
      pynas search --strategy nsga2 --objective zico --objective -latency --latency table:my-machine.json
    """
    import pynas

    flags.check_outputs(report=report, csv=csv)
    if store is not None:
        check_location(store, "--store")
    names = tuple(map(specs.own_proxies, objective or ["zico"]))
    bounds = parse_constraints(constraint or [])
    if resume and store is None:
        raise UserError("--resume needs --store: the file that the run was kept in")
    chosen_options = dict(parse_option(text) for text in option or [])
    models, read = hardware_specs.load_with_table(latency, space, table, metric, dataset)
    setting = _evaluator.prepare(
        space,
        _evaluator.proxies_of(names, models),
        data=specs.DataOptions(images, image_size, classes, batch, seed, text, steps),
        table=read,
        metric=metric,
        dataset=dataset,
        precision=precision,
        threads=threads,
        workers=workers,
    )
    with console.progress(quiet=json) as bar:
        task = bar.add_task(f"{strategy} on {space}", total=budget, note="")
        best = _Best(setting.space, names)

        def on_start(trials: Sequence[Trial]) -> None:
            notes = [best.note(trial) for trial in trials]
            bar.begin(task, len(trials), notes[-1] if notes else "")

        def on_trial(trial: Trial) -> None:
            bar.update(task, completed=trial.number + 1, note=best.note(trial))

        result = pynas.search(
            setting.space,
            strategy=strategy,
            objectives=names,
            constraints=bounds,
            budget=budget,
            evaluator=setting.evaluator,
            store=store,
            seed=seed,
            resume=resume,
            table=setting.table,
            on_trial=on_trial,
            on_start=on_start,
            strategy_options=chosen_options,
            config=setting.config,
            hardware=models,
            workers=workers,
        )
        bar.update(task, completed=len(result.trials), total=len(result.trials))
    if report is not None:
        from pynas.report import write_search_report

        write_search_report(report, result.run, result.trials, space=setting.space, inline=inline)
    if csv is not None:
        result.to_csv(csv)
    if json:
        return console.print_json(
            _record(result, setting.space, report) | {"latencies": hardware_specs.described(models)}
        )
    failed = sum(trial.evaluation.status is not Status.OK for trial in result.trials)
    done = counted(len(result.trials), "trial") + (f" ({failed:,} failed)" if failed else "")
    overhead = 1e3 * result.overhead_seconds / max(1, len(result.trials))
    console.say(f"{done} in {result.seconds:.0f} s; {overhead:.2f} ms a trial outside scoring")
    if result.best is None:
        raise UserError(f"no trial has a finite score: {result.failure}")
    console.say(f"best: {setting.space.format(result.best.architecture)}")
    known = {**result.best.evaluation.scores, **result.best.evaluation.metrics}
    for name, value in known.items():
        if name.startswith("-") and name[1:] in known:
            continue  # the metric of that name shows it
        unit = ""
        if name == "accuracy" and setting.table is not None:
            unit = f"  {setting.table.unit} (trained, from the table; the search did not see it)"
        console.say(f"  {name:10} {hardware_specs.human(name, value)}{unit}")
    for model in models:
        console.say(f"  {model.name} is in {hardware_specs.in_words(model)}")
    if setting.table is not None:
        most = "most accurate" if setting.table.unit == "%" else f"best {setting.table.metric}"
        reached = f"{setting.table.best()[1]:.2f} {setting.table.unit}".rstrip()
        console.say(f"  (the {most} of all {len(setting.table):,} has {reached})")
    if len(names) > 1:
        _print_front(result, setting.space, names)
    if report is not None:
        console.say(f"report: {report}")
    if csv is not None:
        console.say(f"csv: {csv}")
    return None


def _print_front(result: Any, space: Any, objectives: Sequence[str]) -> None:
    shown = sorted(result.pareto, key=lambda trial: -trial.evaluation.scores[objectives[0]])
    volume = f", hypervolume {result.hypervolume:.3f} of the box between the worst and the best"
    console.print_table(
        f"Pareto front: {counted(len(shown), 'trial')}{volume if math.isfinite(result.hypervolume) else ''}",
        ["architecture", *(name.removeprefix("-") for name in objectives), "trial"],
        [
            (
                space.format(trial.architecture),
                *(abs(v) if k.startswith("-") else v for k, v in _chosen(trial, objectives)),
                trial.number + 1,
            )
            for trial in shown[:_MOST_ROWS]
        ],
    )
    if len(shown) > _MOST_ROWS:
        console.say(f"and {len(shown) - _MOST_ROWS:,} more (--json has all)")


def _chosen(trial: Trial, objectives: Sequence[str]) -> list[tuple[str, float]]:
    return [(name, trial.evaluation.scores[name]) for name in objectives]


class _Best:
    """The best trial so far, as the note of the progress bar."""

    def __init__(self, space: Any, objectives: Sequence[str]) -> None:
        self._space, self._objectives = space, objectives
        self._best = float("-inf")
        self._text = ""

    def note(self, trial: Trial) -> str:
        if trial.evaluation.status is Status.OK and trial.evaluation.scores[self._objectives[0]] > self._best:
            self._best = trial.evaluation.scores[self._objectives[0]]
            accuracy = trial.evaluation.metrics.get("accuracy")
            known = "" if accuracy is None else f", trained accuracy {accuracy:.2f} %"
            self._text = f"best {self._objectives[0]} {self._best:.2f}{known}"
        return self._text


def _record(result: Any, space: Any, report: Path | None) -> dict[str, Any]:
    def trial(trial: Trial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "architecture": space.format(trial.architecture),
            **trial.evaluation.to_dict(),
        }

    return {
        "best": None if result.best is None else trial(result.best),
        "pareto": [trial(t) for t in result.pareto],
        "hypervolume": result.hypervolume,
        "trials": [trial(t) for t in result.trials],
        "seconds": result.seconds,
        "overhead_seconds": result.overhead_seconds,
        "report": None if report is None else str(report),
    }


def parse_option(text: str) -> tuple[str, Any]:
    """Read ``name=value``, an option of a strategy; a value is an integer, a number, true/false or text."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UserError(f"--option: expected NAME=VALUE such as population_size=20, got {text!r}")
    for convert in (int, float):
        try:
            return name, convert(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value.lower(), value)
