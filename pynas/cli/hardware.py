"""``pynas hardware build | show | predict``: latencies of a search space on your device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from pynas._errors import UserError
from pynas._io.atomic import check_output
from pynas._plural import counted
from pynas.cli import console, flags, hardware_specs, specs

if TYPE_CHECKING:
    from pynas.hardware import LatencyTable, TabularLatency

app = typer.Typer(
    help="Latencies of a search space: measure its operators on this machine, predict its architectures.\n\n"
    "Example: pynas hardware build nasbench201 my-machine.json --threads 1 --json",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_MOST_ROWS = 15
OptionalSpace = Annotated[
    str | None, typer.Option(help="Search space, for a table of published latencies (hw:FILE).")
]
OptionalDataset = Annotated[
    str | None, typer.Option(help="Data set of the networks, where published latencies have several.")
]


@app.command("build")
def build(
    space: Annotated[str, typer.Argument(help="Search space, NAME, NAME:option=value,... or template:FILE")],
    output: Annotated[Path, typer.Argument(help="Table to write, JSON; resumes an unfinished one.")],
    device: Annotated[str, typer.Option(help="cpu | cuda.")] = "cpu",
    name: Annotated[str | None, typer.Option(help="Name of the device in constraints.")] = None,
    batch: Annotated[int, typer.Option(help="Images in a batch.", min=1)] = 1,
    image_size: Annotated[
        int | None,
        typer.Option(help="Image side in pixels, or words of a sequence; default: as published.", min=1),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Number of outputs; default: as published.", min=1)
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 | bfloat16 | float16 | float64.")] = "float32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Use the channels_last memory format.")
    ] = False,
    runtime: Annotated[
        str, typer.Option(help="What runs them: torch | onnxruntime (CPU; the 'onnx' extra).")
    ] = "torch",
    rounds: Annotated[int, typer.Option(help="Time everything in so many rounds.", min=1)] = 7,
    seconds: Annotated[
        float, typer.Option(help="Time for one operator or network in a round.", min=1e-6)
    ] = 0.02,
    fit: Annotated[int, typer.Option(help="Whole networks to fit the correction to.", min=0)] = 12,
    held_out: Annotated[int, typer.Option(help="Whole networks to report the error on.", min=0)] = 24,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    json: flags.Json = False,
) -> None:
    """Time each distinct operator of a space on this machine; check the sums against whole networks.

    Examples:
      pynas hardware build nasbench201 my-machine.json --threads 1
      pynas hardware build nasbench201 deployed.json --threads 1 --runtime onnxruntime
    """
    from pynas.hardware import LatencyTable

    check_output(output, "OUTPUT", parents=True)
    start = time.perf_counter()
    chosen = specs.open_space(space)
    with console.progress(quiet=json) as bar:
        task = bar.add_task(f"timing {space} on {device}", total=None, note="")

        def on_progress(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total or None, note=note)

        table = LatencyTable.build(
            chosen,
            device,
            path=output,
            name=name,
            batch=batch,
            image_size=image_size,
            num_classes=num_classes,
            dtype=dtype,
            channels_last=channels_last,
            runtime=runtime,
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            fit_networks=fit,
            held_out=held_out,
            seed=seed,
            on_progress=on_progress,
        )
    if json:
        record = _table_record(table) | {"output": str(output), "seconds": time.perf_counter() - start}
        return console.print_json(record)
    _print_summary(table)
    console.say(f"written to {output}; use it with --latency table:{output}")
    return None


@app.command("show")
def show(
    source: Annotated[str, typer.Argument(help="A latency table's file, or hw:FILE[:DEVICE].")],
    space: OptionalSpace = None,
    dataset: OptionalDataset = None,
    json: flags.Json = False,
) -> None:
    """Show a latency table (operators, correction, error) or the columns of published latencies.

    Example: pynas hardware show my-machine.json
    """
    from pynas.hardware import LatencyTable, TabularLatency

    models = hardware_specs.open_model(source, None if space is None else specs.open_space(space), dataset)
    if isinstance(models[0], LatencyTable):
        table = models[0]
        if json:
            return console.print_json(_table_record(table) | {"operators": _operators(table)})
        _print_summary(table)
        rows = sorted(_operators(table).items(), key=lambda item: -item[1]["ms"])
        console.print_table(
            f"The slowest of {counted(len(rows), 'operator')}",
            ["operator", "ms", "20 %", "80 %"],
            [(key, t["ms"], t["low"], t["high"]) for key, t in rows[:_MOST_ROWS]],
        )
        return None
    records = [_column(model) for model in models if isinstance(model, TabularLatency)]
    if json:
        return console.print_json(records)
    console.print_table(
        source,
        ["name", "dataset", "unit", "known", "unsupported", "least", "median", "most"],
        [list(record.values()) for record in records],
    )
    return None


@app.command("predict")
def predict(
    source: Annotated[str, typer.Argument(help="A latency table's file, or hw:FILE[:DEVICE].")],
    architectures: Annotated[list[str], typer.Argument(help="Architecture strings of the space.")],
    space: OptionalSpace = None,
    dataset: OptionalDataset = None,
    json: flags.Json = False,
) -> None:
    """Predict the latency of architectures.

    Example: pynas hardware predict my-machine.json '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    models = hardware_specs.open_model(source, None if space is None else specs.open_space(space), dataset)
    records: list[dict[str, Any]] = []
    for model in models:
        whose: Any = model
        for text in architectures:
            arch = whose.space.parse(text)
            value = model.predict(arch)
            if value != value and len(models) == 1:
                raise UserError(f"{text}: {model.name} is not known: {model.explain(arch)}")
            records.append({"architecture": text, **model.facts(), "value": value})
    if json:
        return console.print_json(records)
    console.print_table(
        source,
        ["architecture", "name", "data", "value"],
        [
            (
                r["architecture"],
                r["name"],
                r.get("dataset", r.get("inputs", "")),
                hardware_specs.human(r["name"], r["value"]),
            )
            for r in records
        ],
    )
    return None


def _print_summary(table: LatencyTable) -> None:
    correction, error, settings = table.correction, table.error(), table.settings
    facts = table.facts()
    console.say(
        f"{table.name} in {table.unit}: {counted(len(table.operators), 'operator')} and "
        f"{counted(len(table.networks), 'network')} of {table.space.name} on {facts['machine']}, "
        f"{facts['runtime']}; {facts['inputs']}, {settings['dtype']}"
    )
    console.say(
        f"ms = {correction.slope:.3f} x sum + {correction.per_operator:.4f} x operators + "
        f"{correction.constant:.3f}"
    )
    missing = f", {error.missing} not predictable" if error.missing else ""
    console.say(
        f"error on {counted(error.count, 'held-out network')}: {error.mape:.1f} % (plain sums "
        f"{error.mape_of_sums:.1f} %); Spearman {error.spearman:.3f}, Kendall {error.kendall:.3f}{missing}"
    )
    console.say(f"times of the same network differ by {error.repeatability:.1f} % between rounds")
    for doubt in table.doubts:
        console.note(f"{table.name}: {doubt}")


def _table_record(table: LatencyTable) -> dict[str, Any]:
    correction = table.correction
    return {
        "name": table.name,
        "unit": table.unit,
        "space": table.space.name,
        "settings": table.settings,
        "machine": table.machine,
        "operators": len(table.operators),
        "correction": {
            "slope": correction.slope,
            "per_operator": correction.per_operator,
            "constant": correction.constant,
        },
        "error": table.error().to_dict(),
        "doubts": list(table.doubts),
    }


def _operators(table: LatencyTable) -> dict[str, dict[str, float]]:
    return {
        key: {"ms": timing.ms, "low": timing.spread[0], "high": timing.spread[1]}
        for key, timing in table.operators.items()
    }


def _column(model: TabularLatency) -> dict[str, Any]:
    known = model.values[model.values > 0]
    quantiles = [float(value) for value in np.quantile(known, [0, 0.5, 1])] if len(known) else [np.nan] * 3
    return {
        "name": model.name,
        "dataset": model.dataset,
        "unit": model.unit,
        "known": len(known),
        "unsupported": int((model.values < 0).sum()),
        "least": quantiles[0],
        "median": quantiles[1],
        "most": quantiles[2],
    }
