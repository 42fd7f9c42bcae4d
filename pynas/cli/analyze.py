"""``pynas analyze weight-sharing``: do shared weights rank architectures as stand-alone training does?"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pynas._errors import UserError
from pynas._io.atomic import check_output_folder
from pynas._plural import counted
from pynas.cli import _sharing_inputs, _sharing_tables, console, flags, specs

if TYPE_CHECKING:
    from pynas.analysis.study import Sharing

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
    space: flags.Space = "nasbench201:channels=8,num_cells=1",
    images: flags.Images = None,
    classes: flags.Classes = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels; digits: 16 by default.", min=4)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Use at most so many images, drawn at random, or words, from the start.", min=2),
    ] = None,
    crop: flags.Crop = 0,
    flip: flags.Flip = False,
    text: flags.Text = None,
    steps: flags.Steps = 35,
    vocabulary: Annotated[
        int, typer.Option(help="Most frequent words of --text kept; the others become <unk>.", min=2)
    ] = specs.VOCABULARY,
    held_out: Annotated[float, typer.Option(help="Fraction of images or text to validate on.")] = 0.5,
    table: flags.Table = None,
    metric: flags.Metric = None,
    dataset: flags.Dataset = None,
    sample: Annotated[int, typer.Option(help="Architectures to evaluate.", min=3)] = 30,
    epochs: Annotated[int, typer.Option(help="Epochs of a supernet.", min=1)] = 50,
    alone_epochs: Annotated[int, typer.Option(help="Epochs of each stand-alone training.", min=1)] = 20,
    alone_repeats: Annotated[
        int, typer.Option(help="Stand-alone trainings of each architecture, averaged.", min=1)
    ] = 1,
    batch: Annotated[int, typer.Option(help="Images, or sequences of words, in a step.", min=2)] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Initial learning rate of all trainings; 0.05 for images, 2 for text by default."),
    ] = None,
    groups: Annotated[
        str,
        typer.Option(
            help="Settings, comma-separated: 0 trains the whole space, 1 only the evaluated architectures, "
            "N > 1 divides these into N groups, each with weights of its own."
        ),
    ] = "0,1,4",
    partition: Annotated[str, typer.Option(help="sequential | shuffled | similar.")] = "shuffled",
    prefix: Annotated[
        str,
        typer.Option(help="How many first layers groups share, the stem being the first; comma-separated."),
    ] = "0",
    seeds: Annotated[int, typer.Option(help="Supernets of each setting.", min=1)] = 2,
    checkpoints: Annotated[int, typer.Option(help="Evaluate so many last checkpoints.", min=1)] = 2,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 50,
    calibration: Annotated[
        int, typer.Option(help="Images to recalibrate the batch norms of each sub-network with.", min=2)
    ] = 512,
    running: Annotated[
        bool, typer.Option("--running", help="Also evaluate with running batch-norm statistics.")
    ] = False,
    top: Annotated[
        float, typer.Option(help="Fraction of best architectures for the correlations in the top.")
    ] = 0.25,
    folder: Annotated[
        Path | None, typer.Option(help="Keep checkpoints and results here; the same command resumes.")
    ] = None,
    report: flags.OutputFile = None,
    inline: flags.Inline = False,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    json: flags.Json = False,
) -> None:
    """Train supernets that share weights in several ways; compare with a table or stand-alone training.

    Compares accuracy on images, and the log likelihood of the next word on text.

    Examples:
      pynas analyze weight-sharing --sample 12 --epochs 10 --alone-epochs 4
      pynas analyze weight-sharing --space darts_rnn:features=64 --text words.txt --report page.html
      pynas analyze weight-sharing --images cifar10:DIR --crop 4 --flip --table analog --folder study
    """
    flags.check_outputs(report=report)
    if folder is not None:
        check_output_folder(folder, "--folder", parents=True)
    if learning_rate is not None:
        flags.check_rates(learning_rate=learning_rate)
    sharings = _sharing_inputs.settings(groups, prefix, partition)
    if not 0 < held_out < 1:
        raise UserError(f"--held-out: expected a fraction between 0 and 1, got {held_out}")
    chosen = specs.open_space(space)
    known = _sharing_inputs.open_table(chosen, table, metric, dataset)
    import torch

    from pynas.analysis import ACCURACY, Protocol, analyze_sharing
    from pynas.analysis.operations import costs, operation_counts
    from pynas.analysis.standalone import ground_truth
    from pynas.analysis.study import Statistics, Study
    from pynas.supernet import TrainingStep

    if threads is not None:
        torch.set_num_threads(threads)
    if text is not None:
        if crop or flip:
            raise UserError("--crop, --flip: these change images; leave them out with --text")
        task = _sharing_inputs.text_task(text, limit, held_out, steps, vocabulary)
    else:
        task = _sharing_inputs.image_task(images, image_size, limit, held_out, seed, classes)
        task = replace(task, transform=flags.transform(crop, flip, task.inputs))
    task.check(chosen)
    architectures = _sharing_inputs.draw(chosen, known, sample, seed)
    _sharing_inputs.check_study(
        chosen,
        sharings,
        architectures,
        len(task.targets) // batch * epochs,
        checkpoints,
        every=checkpoint_every,
        running=running,
    )
    started = time.perf_counter()
    rate = learning_rate or task.training.learning_rate
    options = replace(task.training, epochs=epochs, batch_size=batch, learning_rate=rate)
    alone = replace(options, epochs=alone_epochs)
    kinds: tuple[Statistics, ...] = ("recalibrated", "running") if running else ("recalibrated",)
    with ExitStack() as stack:
        bar = stack.enter_context(console.progress(quiet=json))
        if folder is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pynas-")))
        else:
            place = folder
            place.mkdir(parents=True, exist_ok=True)
        if known is None:
            total = alone_repeats * len(architectures)
            line = bar.add_task("stand-alone training", total=total, note="")
            truth: Any = ground_truth(
                chosen,
                architectures,
                task,
                alone,
                repeats=alone_repeats,
                cache=place / "alone.jsonl",
                on_result=lambda _, __, value: bar.update(line, advance=1, note=task.show(value)),
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
        costs=costs(chosen, architectures, lambda arch: task.params(chosen, arch)),
        labels=[chosen.format(arch) for arch in architectures],
        protocol=Protocol(top=top, seed=seed),
        quality=task.quality if known is None else ACCURACY,
    )
    seconds = time.perf_counter() - started
    own = f"stand-alone training of {counted(alone_epochs, 'epoch')}"
    source = own if known is None else f"{known.metric} of {known.name}"
    if report is not None:
        from pynas.report import write_sharing_report

        facts = {
            "space": space,
            "data": f"{task.name}: {len(task.targets):,} for training, "
            f"{len(task.validation_targets):,} for validation",
            "ground truth": source,
            "supernets": f"{counted(epochs, 'epoch')}, batches of {batch}, "
            f"learning rate {options.learning_rate:g}",
            "seconds": f"{seconds:.0f}",
        }
        title = f"Weight sharing in {chosen.name}"
        write_sharing_report(report, found, title=title, facts=facts, inline=inline)
    if json:
        return console.print_json(
            found.to_dict() | {"truth_source": source, "seconds": seconds, "report": report and str(report)}
        )
    _sharing_tables.print_tables(
        found,
        f"{counted(len(architectures), 'architecture')} of {chosen.name}, {source}; {seconds:.0f} s",
    )
    if report is not None:
        console.say(f"report: {report}")
    return None
