"""``pynas embed``: learn vectors of architectures from their graphs, and look at them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pynas._errors import UserError
from pynas._io import weights
from pynas._plural import counted
from pynas.cli import console, flags, specs

if TYPE_CHECKING:
    from pynas.architecture import Architecture
    from pynas.embedding import Arch2Vec
    from pynas.tables import Table

# Table 1 of arch2vec, in percent: reconstruction, validity, uniqueness. Recalled, not checked in the paper.
PUBLISHED = {"nasbench101": (100.0, 44.97, 98.69), "nasbench201": (100.0, 79.41, 98.72)}
_SHOWN = 5000


def embed(
    space: flags.Space = "nasbench201",
    epochs: Annotated[
        int, typer.Option(help="Epochs; the paper takes 8 on NAS-Bench-101, 10 on 201.", min=1)
    ] = 10,
    limit: Annotated[int, typer.Option(help="Train on at most so many architectures.", min=20)] = 20_000,
    points: Annotated[int, typer.Option(help="Random points to decode.", min=1)] = 10_000,
    published_loop: Annotated[
        bool,
        typer.Option(
            "--published-loop",
            help="Train as the authors' code does: in evaluation mode after the first epoch, same batches.",
        ),
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the embedding here (.safetensors).")] = None,
    table: flags.Table = None,
    metric: flags.Metric = None,
    dataset: flags.Dataset = None,
    report: flags.OutputFile = None,
    inline: flags.Inline = False,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    json: flags.Json = False,
) -> None:
    """Train arch2vec on a space, without accuracies; a --table only colours the plot of the --report.

    Examples:
      pynas embed --save nb201.safetensors
      pynas search --strategy bayesian --option embedding=nb201.safetensors
      pynas embed --table analog --report latent.html
    """
    if save is not None:
        weights.check_target(save, "--save")
    flags.check_outputs(save=save, report=report)
    opened = specs.open_space(space)
    known = None
    if table is not None:
        from pynas import tables

        known = tables.load(table, opened, metric, dataset=dataset)
    import torch

    from pynas import embedding

    if threads is not None:
        torch.set_num_threads(threads)
    made = embedding.Arch2Vec(opened, seed=seed)
    training, held_out = embedding.split(embedding.training_pool(opened, limit=limit, seed=seed))
    losses: list[float] = []
    started = time.perf_counter()
    with console.progress(quiet=json) as bar:
        task = bar.add_task(f"arch2vec on {len(training):,} of {space}", total=epochs, note="")

        def on_epoch(epoch: embedding.Epoch) -> None:
            losses.append(epoch.loss)
            bar.update(task, completed=epoch.number, note=f"loss {epoch.loss:.3f}")

        made.train(training, epochs=epochs, seed=seed, published_loop=published_loop, on_epoch=on_epoch)
    seconds = time.perf_counter() - started
    quality = made.quality(training, held_out, points=points, seed=seed)
    published = PUBLISHED.get(opened.name)
    rows = [
        (name, 100 * value, None if k is None or published is None else published[k])
        for name, value, k in (
            ("operations reconstructed", quality.operation_accuracy, 0),
            ("edges reconstructed", quality.adjacency_accuracy, 0),
            ("whole graphs reconstructed", quality.graph_accuracy, None),
            ("valid, by the authors' check", quality.published_validity, 1),
            ("unique graphs of these", quality.published_uniqueness, 2),
            ("valid, every edge checked", quality.validity, None),
            ("distinct architectures of these", quality.uniqueness, None),
        )
    ]
    if save is not None:
        made.save(save)
    if report is not None:
        _write_report(
            report,
            made,
            [*training, *held_out],
            known,
            subtitle=f"{space}, {counted(epochs, 'epoch')}, seed {seed}",
            quality=rows,
            losses=losses,
            inline=inline,
        )
    if json:
        names = ("reconstruction", "validity", "uniqueness")
        return console.print_json(
            {
                "space": space,
                "published_loop": published_loop,
                "quality": asdict(quality),
                "published": None if published is None else dict(zip(names, published, strict=True)),
                "losses": losses,
                "seconds": seconds,
                "saved": None if save is None else str(save),
                "report": None if report is None else str(report),
            }
        )
    console.print_table(
        f"{counted(len(held_out), 'architecture')} held out; {counted(points, 'random point')} "
        f"({seconds:.0f} s)",
        ["%", "here", "arch2vec paper"],
        rows,
    )
    for name, path in (("saved", save), ("report", report)):
        if path is not None:
            console.say(f"{name}: {path}")
    return None


def _write_report(
    path: Path, made: Arch2Vec, architectures: list[Architecture], table: Table | None, **settings: Any
) -> None:
    """Write a page with at most ``_SHOWN`` of the architectures."""
    from pynas.report import write_embedding_report

    shown = architectures[:: max(1, len(architectures) // _SHOWN)]
    if table is not None:
        values = [table.accuracy(architecture) for architecture in shown]
        if all(value is None for value in values):
            raise UserError("--table: has none of the architectures to plot")
        label = f"{table.metric} ({table.unit})" if table.unit else table.metric
        settings |= {"accuracy": values, "accuracy_label": label}
        settings |= {"higher_is_better": table.higher_is_better}
    vectors = made.embed(shown).double().numpy()
    write_embedding_report(path, made.space, shown, vectors, **settings)
