"""``pynas analyze weight-sharing``: do shared weights rank architectures as training each alone does?"""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from pynas._errors import UserError
from pynas.cli import _inputs, _options, _output

if TYPE_CHECKING:
    from pynas.analysis import SharingAnalysis
    from pynas.analysis.study import Sharing
    from pynas.architecture import Architecture
    from pynas.benchmarks import Table
    from pynas.spaces import SearchSpace

app = typer.Typer(
    help="Whether estimates of accuracy can be trusted.\n\nExample: pynas analyze weight-sharing --json",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def analyze() -> None:
    """Whether estimates of accuracy can be trusted."""


@app.command("weight-sharing")
def weight_sharing(
    space: _options.Space = "nasbench201:channels=8,num_cells=1",
    images: _options.Images = "digits",
    image_size: Annotated[int | None, typer.Option(help="Resize images; digits are 16.", min=4)] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many images, at random.", min=2)] = None,
    held_out: Annotated[float, typer.Option(help="Fraction of images to validate on.")] = 0.5,
    table: _options.Table = None,
    metric: _options.Metric = None,
    dataset: _options.Dataset = None,
    sample: Annotated[int, typer.Option(help="Architectures to evaluate.", min=3)] = 30,
    epochs: Annotated[int, typer.Option(help="Of a supernet.", min=1)] = 50,
    alone_epochs: Annotated[int, typer.Option(help="Of each architecture alone.", min=1)] = 20,
    alone_repeats: Annotated[int, typer.Option(help="Trainings of each alone, averaged.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Images of a step.", min=2)] = 64,
    learning_rate: Annotated[float, typer.Option(help="At the start, of all trainings.")] = 0.05,
    groups: Annotated[
        str,
        typer.Option(
            help="Settings, comma-separated: 0 trains the whole space, 1 only the evaluated architectures, "
            "more divide these into so many groups with weights of their own."
        ),
    ] = "0,1,4",
    partition: Annotated[str, typer.Option(help="sequential | shuffled | similar.")] = "shuffled",
    prefix: Annotated[
        str, typer.Option(help="First layers (stem is the first) that groups share; also comma-separated.")
    ] = "0",
    seeds: Annotated[int, typer.Option(help="Supernets of each setting.", min=1)] = 2,
    checkpoints: Annotated[int, typer.Option(help="Last checkpoints to judge.", min=1)] = 2,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 50,
    calibration: Annotated[
        int, typer.Option(help="Images to recalibrate the batch norms of each sub-network with.", min=2)
    ] = 512,
    running: Annotated[
        bool, typer.Option("--running", help="Judge with running batch-norm statistics, too.")
    ] = False,
    top: Annotated[float, typer.Option(help="Share of the best for correlations in the top.")] = 0.25,
    folder: Annotated[
        Path | None, typer.Option(help="Keep checkpoints and results here; the same call goes on.")
    ] = None,
    report: _options.OutputFile = None,
    seed: _options.Seed = 0,
    threads: _options.Threads = None,
    json: _options.Json = False,
) -> None:
    """Train supernets that share weights in several ways, and compare with a table or with training alone.

    Examples:
      pynas analyze weight-sharing --sample 12 --epochs 10 --alone-epochs 4
      pynas analyze weight-sharing --space nasbench201 --images cifar10:DIR --table analog --folder study
    """
    _options.check_rates(learning_rate=learning_rate)
    sharings = _sharings(groups, prefix, partition)
    if not 0 < held_out < 1:
        raise UserError(f"--held-out: expected a fraction between 0 and 1, got {held_out}")
    chosen = _inputs.open_space(space)
    known = _table(chosen, table, metric, dataset)
    import torch

    from pynas import data
    from pynas.analysis import Protocol, analyze_sharing
    from pynas.analysis.operations import operation_counts
    from pynas.analysis.standalone import Task, ground_truth
    from pynas.analysis.study import Statistics, Study
    from pynas.supernet import TrainingOptions, TrainingStep

    if threads is not None:
        torch.set_num_threads(threads)
    if image_size is None and images == "digits":
        image_size = 16  # they are scans of 8x8
    task = Task.split(data.load_images(images, size=image_size, limit=limit, seed=seed), held_out, seed)
    architectures = _sample(chosen, known, sample, seed)
    _check_study(
        chosen,
        sharings,
        len(architectures),
        len(task.targets) // batch * epochs,
        checkpoints,
        every=checkpoint_every,
    )
    started = time.perf_counter()
    options = TrainingOptions(epochs=epochs, batch_size=batch, learning_rate=learning_rate)
    alone = TrainingOptions(epochs=alone_epochs, batch_size=batch, learning_rate=learning_rate)
    kinds: tuple[Statistics, ...] = ("recalibrated", "running") if running else ("recalibrated",)
    with ExitStack() as stack:
        bar = stack.enter_context(_output.progress(quiet=json))
        if folder is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pynas-")))
        else:
            place = folder
            place.mkdir(parents=True, exist_ok=True)
        if known is None:
            total = alone_repeats * len(architectures)
            line = bar.add_task("training alone", total=total, note="")
            truth: Any = ground_truth(
                chosen,
                architectures,
                task,
                alone,
                repeats=alone_repeats,
                cache=place / "alone.jsonl",
                on_result=lambda _, __, value: bar.update(line, advance=1, note=f"{value:.1f} %"),
            )
        else:
            truth = [known.accuracy(arch) for arch in architectures]
        supernets = bar.add_task("supernets", total=len(sharings) * seeds, note="")

        def on_step(sharing: Sharing, number: int, step: TrainingStep) -> None:
            done = sharings.index(sharing) * seeds + number + (step.number + 1) / step.total
            bar.update(supernets, completed=done, note=f"{sharing.name}, loss {step.loss:.3f}")

        study = Study(
            chosen,
            architectures,
            task,
            options,
            place,
            seeds=seeds,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            calibration=calibration,
            on_step=on_step,
        )
        estimates = {}
        for sharing in sharings:
            for kind, values in study.estimates(sharing, kinds).items():
                estimates[sharing.name + (", running statistics" if kind == "running" else "")] = values
    found = analyze_sharing(
        estimates,
        truth,
        operations=operation_counts(chosen, architectures),
        costs={"params": [chosen.params(a, task.num_classes) for a in architectures]},
        labels=[chosen.format(arch) for arch in architectures],
        protocol=Protocol(top=top, seed=seed),
    )
    seconds = time.perf_counter() - started
    source = f"{alone_epochs} epochs alone" if known is None else f"{known.metric} of {known.name}"
    if report is not None:
        from pynas.report import write_sharing_report

        facts = {
            "space": space,
            "images": f"{task.name}: {len(task.targets)} to train on, {len(task.validation_targets)} others",
            "truth": source,
            "supernets": f"{epochs} epochs, batches of {batch}, learning rate {learning_rate:g}",
            "seconds": f"{seconds:.0f}",
        }
        write_sharing_report(report, found, title=f"Weight sharing in {chosen.name}", facts=facts)
    if json:
        return _output.print_json(
            found.to_dict() | {"truth_source": source, "seconds": seconds, "report": report and str(report)}
        )
    _print(found, f"{len(architectures)} architectures of {chosen.name}, {source}; {seconds:.0f} s")
    if report is not None:
        print(f"report: {report}")
    return None


def _sharings(groups: str, prefix: str, partition: str) -> list[Sharing]:
    from pynas.analysis.groups import Partition
    from pynas.analysis.study import Sharing

    if partition not in get_args(Partition):
        raise UserError(f"--partition: expected {' | '.join(get_args(Partition))}, got {partition!r}")
    numbers: dict[str, list[int]] = {}
    for name, text in (("--groups", groups), ("--prefix", prefix)):
        parts = _options.comma_separated(text)
        if not parts or not all(part.isdigit() for part in parts):
            raise UserError(f"{name}: expected whole numbers such as 0,1,4, got {text!r}")
        numbers[name] = [int(part) for part in parts]
    found = [
        Sharing(count, cast(Partition, partition), common)
        for count in numbers["--groups"]
        for common in (numbers["--prefix"] if count > 1 else [0])
    ]
    return list(dict.fromkeys(found))


def _check_study(
    space: SearchSpace, sharings: list[Sharing], sample: int, steps: int, checkpoints: int, *, every: int
) -> None:
    """What would else be found wrong only after hours of training."""
    from pynas.supernet import build

    largest = max(sharing.groups for sharing in sharings)
    if largest > sample:
        raise UserError(f"--groups: expected at most {sample}, one for each architecture, got {largest}")
    if steps < 1:
        raise UserError("--batch: larger than the images to train on; take fewer, or more images")
    if -(-steps // every) < checkpoints:
        raise UserError(
            f"--checkpoints {checkpoints}: a training of {steps} steps has {-(-steps // every)} of them; "
            "take a smaller --checkpoint-every"
        )
    build(space)


def _table(space: SearchSpace, table: str | None, metric: str | None, dataset: str | None) -> Table | None:
    if table is None:
        if metric or dataset:
            raise UserError("--metric, --dataset: say of which --table")
        return None
    from pynas import benchmarks

    return benchmarks.load(table, space, metric, dataset=dataset)


def _sample(space: SearchSpace, table: Table | None, count: int, seed: int) -> tuple[Architecture, ...]:
    """Different architectures, uniformly; of those that the table knows."""
    rng = random.Random(seed)
    if table is not None:
        return tuple(rng.sample(list(table.architectures()), min(count, len(table))))
    if space.size is not None and space.size < count:
        raise UserError(f"--sample: {space.name} has {space.size} architectures, fewer than {count}")
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return tuple(found)


def _print(found: SharingAnalysis, what: str) -> None:
    shares = found.protocol.shares
    rows: list[list[object]] = []
    for s in found.settings:
        stable = [s.seeds.tau if s.seeds else None]
        stable += [sum(c.tau for c in s.checkpoints) / len(s.checkpoints) if s.checkpoints else None]
        rows.append([s.name, str(s.kendall), str(s.spearman), s.kendall_top and str(s.kendall_top), *stable])
    title = f"{what}; {100 * found.protocol.confidence:g} % intervals"
    columns = ["setting", "Kendall", "Spearman", f"Kendall, top {found.protocol.top:.0%}"]
    _output.print_table(title, [*columns, "between seeds", "between checkpoints"], rows)
    picks = [("chance", found.chance), *((s.name, s.picks) for s in found.settings)]
    _output.print_table(
        "picking the best (regret in points)",
        ["setting", "picked", "regret", "rank", *(f"finds a top {share:.0%}" for share in shares)],
        [
            (name, p.count, round(p.regret, 3), round(p.rank, 2), *(round(p.found[s], 3) for s in shares))
            for name, each in picks
            for p in each
        ],
    )
    prunings = [("chance", found.chance_prunings), *((s.name, s.prunings) for s in found.settings)]
    _output.print_table(
        "pruning the worst",
        [
            "setting",
            "removed",
            "of the worst",
            *(f"of the top {share:.0%}" for share in shares),
            "mean gains",
        ],
        [
            (
                name,
                p.share,
                round(p.worst_removed, 3),
                *(round(p.best_lost[s], 3) for s in shares),
                round(p.gain, 3),
            )
            for name, each in prunings
            for p in each
        ],
    )
    first = found.settings[0]
    _output.print_table(
        f"bias of operations, {first.name}: rank error of architectures that hold it, and with each copy",
        ["operation", "present", "rank error", "each copy"],
        [(b.name, b.present, str(b.error), str(b.slope)) for b in first.bias],
    )
