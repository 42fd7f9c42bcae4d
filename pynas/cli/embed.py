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
    if save is not None:
        made.save(save)
    if report is not None:
        subtitle = f"{space}, {counted(epochs, 'epoch')}, seed {seed}"
        _write_report(report, made, [*training, *held_out], known, subtitle)
    published = PUBLISHED.get(opened.name)
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
    rows = [
        ("operations reconstructed", quality.operation_accuracy, 0),
        ("edges reconstructed", quality.adjacency_accuracy, 0),
        ("whole graphs reconstructed", quality.graph_accuracy, None),
        ("valid, by the authors' check", quality.published_validity, 1),
        ("unique graphs of these", quality.published_uniqueness, 2),
        ("valid, every edge checked", quality.validity, None),
        ("distinct architectures of these", quality.uniqueness, None),
    ]
    console.print_table(
        f"{counted(len(held_out), 'architecture')} held out; {counted(points, 'random point')} "
        f"({seconds:.0f} s)",
        ["%", "here", "arch2vec paper"],
        [(n, 100 * v, None if k is None or published is None else published[k]) for n, v, k in rows],
    )
    for name, path in (("saved", save), ("report", report)):
        if path is not None:
            console.say(f"{name}: {path}")
    return None


def _write_report(
    path: Path, made: Arch2Vec, architectures: list[Architecture], table: Table | None, subtitle: str
) -> None:
    """Write a page with the vectors in the plane of their first two principal components."""
    import numpy as np
    import plotly.graph_objects as go

    from pynas.report import document

    shown = architectures[:: max(1, len(architectures) // _SHOWN)]
    vectors = made.embed(shown).double().numpy()
    centred = vectors - vectors.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    share = singular**2 / (singular**2).sum()
    marker: dict[str, Any] = {"size": 4, "color": document.BLUE, "opacity": 0.7}
    hover = [document.escaped(made.space.format(architecture)) for architecture in shown]
    if table is not None:
        values = [table.accuracy(architecture) for architecture in shown]
        found = [value for value in values if value is not None]
        if not found:
            raise UserError("--table: has none of the architectures to plot")
        # Start the scale at the fifth percentile: the few networks that learn nothing would take all of it.
        low = float(np.quantile(found, 0.05 if table.higher_is_better else 0.0))
        title = {"text": document.escaped(f"{table.metric} {table.unit}".strip()), "font": {"size": 12}}
        scale = {"color": values, "colorscale": "Viridis", "cmin": low, "cmax": max(found)}
        marker |= scale | {"colorbar": {"title": title, "thickness": 12}}
        hover = [f"{text}<br>{value}" for text, value in zip(hover, values, strict=True)]
    figure = go.Figure()
    figure.add_scattergl(
        x=plane[:, 0], y=plane[:, 1], mode="markers", marker=marker, text=hover, hoverinfo="text"
    )
    for update, number in ((figure.update_xaxes, 0), (figure.update_yaxes, 1)):
        update(title_text=f"principal component {number + 1}, {100 * share[number]:.0f} % of the variance")
    card = document.card("Latent space", document.plot(figure, height=640), wide=True)
    document.write_page(path, "arch2vec embedding", subtitle, [document.grid([card])])
