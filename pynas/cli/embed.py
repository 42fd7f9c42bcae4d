"""``pynas embed``: learn vectors of architectures from their graphs, and look at them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pynas import _weights
from pynas._errors import UserError
from pynas.cli import _inputs, _options, _output

if TYPE_CHECKING:
    from pynas.architecture import Architecture
    from pynas.benchmarks import Table
    from pynas.embedding import Arch2Vec

# Percent in table 1 of arch2vec: reconstruction, validity, uniqueness; recalled, not checked in the paper.
PUBLISHED = {"nasbench101": (100.0, 44.97, 98.69), "nasbench201": (100.0, 79.41, 98.72)}
_SHOWN = 5000


def embed(
    space: _options.Space = "nasbench201",
    epochs: Annotated[int, typer.Option(help="Passes; 8 on NAS-Bench-101, 10 on 201.", min=1)] = 10,
    limit: Annotated[int, typer.Option(help="Learn from so many architectures at most.", min=20)] = 20_000,
    points: Annotated[int, typer.Option(help="Random points to decode.", min=1)] = 10_000,
    save: Annotated[Path | None, typer.Option(help="Write the embedding here (.safetensors).")] = None,
    table: _options.Table = None,
    metric: _options.Metric = None,
    dataset: _options.Dataset = None,
    report: _options.OutputFile = None,
    seed: _options.Seed = 0,
    threads: _options.Threads = None,
    json: _options.Json = False,
) -> None:
    """Train arch2vec on a space; no accuracy enters, a --table only colours the plot of the --report.

    Examples:
      pynas embed --save nb201.safetensors
      pynas search --strategy bayesian --option embedding=nb201.safetensors
      pynas embed --table analog --report latent.html
    """
    if save is not None:
        _weights.check_target(save, "--save")
    _options.check_outputs(save=save, report=report)
    opened = _inputs.open_space(space)
    known = None
    if table is not None:
        from pynas import benchmarks

        known = benchmarks.load(table, opened, metric, dataset=dataset)
    import torch

    from pynas import embedding

    if threads is not None:
        torch.set_num_threads(threads)
    made = embedding.Arch2Vec(opened, seed=seed)
    training, held_out = embedding.split(embedding.training_pool(opened, limit=limit, seed=seed))
    losses: list[float] = []
    started = time.perf_counter()
    with _output.progress(quiet=json) as bar:
        task = bar.add_task(f"arch2vec on {len(training):,} of {space}", total=epochs, note="")

        def on_epoch(epoch: embedding.Epoch) -> None:
            losses.append(epoch.loss)
            bar.update(task, completed=epoch.number, note=f"loss {epoch.loss:.3f}")

        made.train(training, epochs=epochs, seed=seed, on_epoch=on_epoch)
    seconds = time.perf_counter() - started
    quality = made.quality(training, held_out, points=points, seed=seed)
    if save is not None:
        made.save(save)
    if report is not None:
        _write_report(report, made, [*training, *held_out], known, f"{space}, {epochs} epochs, seed {seed}")
    published = PUBLISHED.get(opened.name)
    if json:
        names = ("reconstruction", "validity", "uniqueness")
        return _output.print_json(
            {
                "space": space,
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
    _output.print_table(
        f"{len(held_out):,} architectures held out; {points:,} random points ({seconds:.0f} s)",
        ["%", "here", "arch2vec paper"],
        [(n, 100 * v, None if k is None or published is None else published[k]) for n, v, k in rows],
    )
    for name, path in (("saved", save), ("report", report)):
        if path is not None:
            _output.say(f"{name}: {path}")
    return None


def _write_report(
    path: Path, made: Arch2Vec, architectures: list[Architecture], table: Table | None, subtitle: str
) -> None:
    """A page with the plane of the largest variance of the vectors."""
    import numpy as np
    import plotly.graph_objects as go

    from pynas.report import _page

    shown = architectures[:: max(1, len(architectures) // _SHOWN)]
    vectors = made.embed(shown).double().numpy()
    centred = vectors - vectors.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    share = singular**2 / (singular**2).sum()
    marker: dict[str, Any] = {"size": 4, "color": _page.BLUE, "opacity": 0.7}
    hover = [_page.escaped(made.space.format(architecture)) for architecture in shown]
    if table is not None:
        values = [table.accuracy(architecture) for architecture in shown]
        found = [value for value in values if value is not None]
        if not found:
            raise UserError("--table: has none of the architectures to plot")
        # Colours from the fifth percentile: the few that learn nothing would take the whole scale.
        low = float(np.quantile(found, 0.05 if table.higher_is_better else 0.0))
        title = {"text": _page.escaped(f"{table.metric} {table.unit}".strip()), "font": {"size": 12}}
        scale = {"color": values, "colorscale": "Viridis", "cmin": low, "cmax": max(found)}
        marker |= scale | {"colorbar": {"title": title, "thickness": 12}}
        hover = [f"{text}<br>{value}" for text, value in zip(hover, values, strict=True)]
    figure = go.Figure()
    figure.add_scattergl(
        x=plane[:, 0], y=plane[:, 1], mode="markers", marker=marker, text=hover, hoverinfo="text"
    )
    for update, number in ((figure.update_xaxes, 0), (figure.update_yaxes, 1)):
        update(title_text=f"principal component {number + 1}, {100 * share[number]:.0f} % of the variance")
    card = _page.card("Latent space", _page.plot(figure, height=640), wide=True)
    _page.write_page(path, "arch2vec embedding", subtitle, [_page.grid([card])])
