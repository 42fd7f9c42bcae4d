"""``pynas rank``: how well proxies predict the accuracy of trained networks."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from pynas._errors import UserError
from pynas.cli import _evaluator, _hardware, _inputs, _options, _output
from pynas.cli._hardware import COSTS, parse_constraints
from pynas.store import check_location
from pynas.trial import Trial

if TYPE_CHECKING:
    from pynas.benchmarks import Table
    from pynas.ranking import Estimate, Ranking


def rank(
    space: _options.Space = "nasbench201",
    proxies: Annotated[
        str,
        typer.Option(
            help="Comma-separated names; see 'pynas proxies'. Ensembles: vote(a,b,...), rank_sum(a,b,...)."
        ),
    ] = "zico,params,flops",
    images: _options.Images = "digits",
    table: Annotated[str, typer.Option(help=_options.TABLE_HELP)] = "analog",
    metric: _options.Metric = None,
    dataset: _options.Dataset = None,
    sample: Annotated[
        int, typer.Option(help="Architectures, drawn uniformly without replacement.", min=3)
    ] = 100,
    batch: _options.Batch = 256,
    precision: _options.Precision = "float32",
    latency: _hardware.Latency = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Correlations also where COST<NUMBER, such as 'latency:raspi4<20'; repeatable."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare Pareto fronts under this cost; those of --constraint anyway. {COSTS}"),
    ] = None,
    top: Annotated[float, typer.Option(help="Share of the most accurate for the last column.")] = 0.05,
    seed: _options.Seed = 0,
    threads: _options.Threads = None,
    store: Annotated[
        str | None, typer.Option(help="Keep scores in this SQLite file; --resume continues it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the ranking in --store.")] = False,
    report: _options.OutputFile = None,
    json: _options.Json = False,
) -> None:
    """Rank correlation of proxies with a table of accuracies, beside params and FLOPs.

    Examples:
      pynas rank --proxies zico,snip --images cifar10:cifar-10-batches-py --sample 300
      pynas rank --proxies 'zico,vote(synflow,jacob_cov,snip)' --sample 300
      pynas rank --proxies zico,naswot --latency hw:hw_nas_bench.npz --constraint 'latency:raspi4<20'
    """
    import pynas
    from pynas import _ensembles
    from pynas.ranking import BASELINES, rank_trials

    _options.check_outputs(report=report)
    if store is not None:
        check_location(store, "--store")
    bounds = parse_constraints(constraint or [])
    names = _ensembles.split(proxies)
    singles = _ensembles.singles(names)
    # The baselines come with every trial from the space's closed forms; scoring them again would cost passes.
    scored = [name for name in singles if name not in BASELINES] or singles
    if not scored:
        raise UserError("--proxies: expected at least one; see 'pynas proxies'")
    models = _hardware.load_models(latency, _inputs.open_space(space)) if latency else ()
    setting = _evaluator.prepare(
        space,
        scored,
        images=images,
        batch=batch,
        table=table,
        metric=metric,
        dataset=dataset,
        precision=precision,
        seed=seed,
        threads=threads,
    )
    assert setting.table is not None
    costs = _evaluator.costs_of(setting, models, bounds, cost or ())
    sample = min(sample, len(setting.table))
    with _output.progress(quiet=json) as bar:
        task = bar.add_task(f"scoring {space}", total=sample, note="")

        def on_trial(trial: Trial) -> None:
            bar.update(task, completed=trial.number + 1, note=f"{trial.evaluation.seconds:.2f} s each")

        result = pynas.search(
            _evaluator.known_to(setting.table, setting.space),
            strategy="random",
            objectives=scored,
            budget=sample,
            evaluator=setting.evaluator,
            store=store,
            seed=seed,
            resume=resume,
            table=setting.table,
            on_trial=on_trial,
            strategy_options={"distinct": False},
            config=setting.config,
        )
    ranking = rank_trials(
        _ensembles.with_ensembles(_evaluator.with_costs(result.trials, costs), names),
        [*scored, *(name for name in names if name not in singles)],
        format=setting.space.format,
        accuracy_label=_label(setting.table),
        top=top,
        seed=seed,
        costs=cost or (),
        bounds=bounds,
    )
    if report is not None:
        from pynas.report import write_ranking_report

        facts = {
            "accuracy": f"{setting.table.metric} of {setting.table.name}",
            "images": images,
            "batch": str(batch),
            "precision": precision,
            "seed": str(seed),
        }
        write_ranking_report(report, ranking, title=f"How proxies rank {space}", facts=facts)
    if json:
        return _output.print_json(jsonlib.loads(ranking.to_json()) | {"report": report and str(report)})
    _print(ranking, f"{space}, {setting.table.metric} of {setting.table.name}")
    if report is not None:
        _output.say(f"report: {report}")
    return None


def _label(table: Table) -> str:
    """What the axis of a plot shows."""
    if table.unit == "%":
        return f"{table.dataset} accuracy (%)"
    return f"{table.dataset} {table.metric}" + (f" ({table.unit})" if table.unit else "")


def _print(ranking: Ranking, what: str) -> None:
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
    title = f"{len(ranking.accuracy)} architectures of {what}; {100 * ranking.confidence:g} % intervals"
    _output.print_table(title, [*columns, "excluded"], rows)
    for front in ranking.fronts:
        _output.print_table(
            f"Pareto fronts of proxy and {front.cost}, judged by accuracy; the true front has "
            f"{len(front.truth)} of {front.count} architectures",
            ["proxy", "on its front", "hypervolume / true", "distance (IGD)"],
            [
                (name, len(c.members), round(c.hypervolume_ratio, 4), round(c.distance, 4))
                for name, c in front.chosen.items()
            ],
        )
