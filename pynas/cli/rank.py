"""``pynas rank``: how well proxies predict the accuracy of trained networks."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pynas._errors import UserError
from pynas._plural import counted
from pynas.cli import _evaluator, console, flags, hardware_specs, specs
from pynas.cli._rank_notes import notes
from pynas.cli.hardware_specs import COSTS, parse_constraints
from pynas.store import check_location
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.hardware import HardwareModel
    from pynas.ranking import Estimate, Ranking
    from pynas.tables import Table


def rank(
    space: flags.Space = "nasbench201",
    proxies: Annotated[
        str,
        typer.Option(help=f"{flags.PROXIES_HELP} Ensembles: vote(a,b,...), rank_sum(a,b,...)."),
    ] = "zico,params,flops",
    images: flags.Images = None,
    image_size: flags.ImageSize = None,
    classes: flags.Classes = None,
    table: Annotated[str, typer.Option(help=flags.TABLE_HELP)] = "analog",
    metric: flags.Metric = None,
    dataset: flags.Dataset = None,
    subset: Annotated[
        str | None,
        typer.Option(
            help="Rank only a named part of the space: valid, the 9,445 cells of nasbench201 that published "
            "tables are over."
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(help="Architectures, drawn uniformly without replacement.", min=3)
    ] = 100,
    batch: flags.Batch = None,
    precision: flags.Precision = "float32",
    latency: hardware_specs.Latency = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help="Also correlate where a cost is below a bound, such as 'latency:raspi4<20'; repeatable."
        ),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare Pareto fronts under this cost, besides those of --constraint. {COSTS}"),
    ] = None,
    top: Annotated[
        float, typer.Option(help="Fraction of most accurate architectures for the correlations in the top.")
    ] = 0.05,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    store: Annotated[
        str | None, typer.Option(help="Keep scores in this SQLite file; --resume continues it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the ranking in --store.")] = False,
    report: flags.OutputFile = None,
    inline: flags.Inline = False,
    json: flags.Json = False,
) -> None:
    """Rank correlation of proxies with a table of accuracies, with params and FLOPs as baselines.

    Examples:
      pynas rank --proxies zico,snip --images cifar10:cifar-10-batches-py --sample 300
      pynas rank --proxies 'zico,vote(synflow,jacob_cov,snip)' --sample 300
      pynas rank --subset valid --sample 9445   # what published tables of NAS-Bench-201 are over
      pynas rank --proxies zico,naswot --latency hw:hw_nas_bench.npz --constraint 'latency:raspi4<20'
    """
    import pynas
    from pynas.hardware import cautions
    from pynas.ranking import BASELINES, ensembles, rank_trials

    flags.check_outputs(report=report)
    if store is not None:
        check_location(store, "--store")
    bounds = parse_constraints(constraint or [])
    names = ensembles.split(specs.own_proxies(proxies))
    singles = ensembles.singles(names)
    # The baselines come with every trial from the space's closed forms; scoring them again would cost passes.
    scored = [name for name in singles if name not in BASELINES] or singles
    if not scored:
        raise UserError("--proxies: expected at least one; see 'pynas proxies'")
    if subset is not None:
        named = specs.open_space(space)
        if subset not in named.subsets:
            known = f"expected one of {', '.join(named.subsets)}" if named.subsets else "it has none"
            raise UserError(f"--subset: {named.name} has no subset {subset!r}; {known}")
    models, read = hardware_specs.load_with_table(latency, space, table, metric, dataset)
    setting = _evaluator.prepare(
        space,
        scored,
        data=specs.DataOptions(images, image_size, classes, batch, seed),
        table=read,
        metric=metric,
        dataset=dataset,
        precision=precision,
        threads=threads,
    )
    assert setting.table is not None
    costs = _evaluator.costs_of(setting, models, bounds, cost or ())
    part, population = _evaluator.known_to(setting.table, setting.space, subset)
    sample = min(sample, population)
    with console.progress(quiet=json) as bar:
        task = bar.add_task(f"scoring {space}", total=sample, note="")

        def on_trial(trial: Trial) -> None:
            bar.update(task, completed=trial.number + 1, note=f"{trial.evaluation.seconds:.2f} s each")

        result = pynas.search(
            part,
            strategy="random",
            objectives=scored,
            budget=sample,
            evaluator=setting.evaluator,
            store=store,
            seed=seed,
            resume=resume,
            table=setting.table,
            on_trial=on_trial,
            on_start=lambda trials: bar.begin(task, len(trials)),
            strategy_options={"distinct": False},
            config={**setting.config, **({} if subset is None else {"subset": subset})},
        )
    ranking = rank_trials(
        ensembles.with_ensembles(_evaluator.with_costs(result.trials, costs), names),
        [*scored, *(name for name in names if name not in singles)],
        format=setting.space.format,
        accuracy_label=_label(setting.table),
        top=top,
        seed=seed,
        costs=cost or (),
        bounds=bounds,
    )
    sources = hardware_specs.described(models)
    for caution in cautions(models, setting.table.dataset):
        console.note(caution)
    if report is not None:
        from pynas.report import write_ranking_report

        facts = {
            "accuracy": f"{setting.table.metric} of {setting.table.name}",
            "drawn from": _drawn_from(population, subset),
            "images": str(setting.config.get("images", images)),
            "batch": str(setting.config.get("batch", batch)),
            "precision": precision,
            "seed": str(seed),
        } | {model.name: hardware_specs.in_words(model) for model in models}
        title = f"How proxies rank {space}"
        write_ranking_report(report, ranking, title=title, facts=facts, space=setting.space, inline=inline)
    if json:
        return console.print_json(
            jsonlib.loads(ranking.to_json())
            | {"subset": subset, "population": population}
            | {"latencies": sources, "report": report and str(report)}
        )
    drawn = _drawn_from(population, subset)
    what = f"{space}, drawn from {drawn}; {setting.table.metric} of {setting.table.name}"
    _print(ranking, what, models)
    if report is not None:
        console.say(f"report: {report}")
    return None


def _drawn_from(population: int, subset: str | None) -> str:
    return counted(population, "architecture") + (f" of the subset {subset}" if subset else "")


def _label(table: Table) -> str:
    """What the axis of a plot shows."""
    if table.unit == "%":
        return f"{table.dataset} accuracy (%)"
    return f"{table.dataset} {table.metric}" + (f" ({table.unit})" if table.unit else "")


def _print(ranking: Ranking, what: str, models: Sequence[HardwareModel]) -> None:
    def within(estimate: Estimate | None, count: int) -> str | None:
        return None if estimate is None else f"{estimate} (n={count})"

    in_top, under = f"in the top {100 * ranking.top:g} %", ranking.constraint
    columns = ["proxy", "Kendall", "Spearman", f"Kendall {in_top}", f"Spearman {in_top}"]
    columns += [f"Kendall, {under}", f"Spearman, {under}"] if under else []
    rows: list[list[object]] = []
    for name, c in ranking.correlations.items():
        row: list[object] = [name, str(c.kendall), str(c.spearman)]
        row += [within(estimate, c.count_top) for estimate in (c.kendall_top, c.spearman_top)]
        if under:
            row += [within(estimate, c.count_within) for estimate in (c.kendall_within, c.spearman_within)]
        rows.append([*row, c.excluded])
    title = f"{counted(len(ranking.accuracy), 'architecture')} of {what}; "
    title += f"{100 * ranking.confidence:g} % intervals"
    console.print_table(title, [*columns, "failed"], rows)
    for model in models:
        console.say(f"{model.name}: {hardware_specs.in_words(model)}")
    for line in notes(ranking):
        console.say(line)
    for front in ranking.fronts:
        console.print_table(
            f"Pareto fronts of proxy and {front.cost}, judged by accuracy; the true front has "
            f"{len(front.truth):,} of {counted(front.count, 'architecture')}",
            ["proxy", "on its front", "hypervolume / true", "distance (IGD)"],
            [
                (name, len(c.members), round(c.hypervolume_ratio, 4), round(c.distance, 4))
                for name, c in front.chosen.items()
            ],
        )
