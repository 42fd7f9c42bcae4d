"""``pynas tables convert | info``: published tables, each converted to one compact file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pynas._io.atomic import check_output
from pynas._plural import counted
from pynas.cli import console, flags

app = typer.Typer(
    help="Tables of trained architectures: convert the published files, show what is inside.\n\n"
    "Example: pynas tables convert nasbench_only108.tfrecord nb101.npz --json",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Official file or folder of a benchmark.")],
    output: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    json: flags.Json = False,
) -> None:
    """Convert NAS-Bench-101/201, NATS-Bench, TransNAS-Bench-101 or HW-NAS-Bench to one compact file.

    Example: pynas tables convert NATS-tss-v1_0-3ffb9-simple nats-tss.npz
    """
    from pynas import tables
    from pynas.tables import FAMILIES

    check_output(output.expanduser(), "OUTPUT")
    start = time.perf_counter()
    with console.progress(quiet=json) as bar:
        task = bar.add_task(f"reading {source.name}", total=100, note="% read")
        content = tables.convert(
            source,
            output,
            overwrite=overwrite,
            on_progress=lambda share: bar.update(task, completed=int(100 * share)),
        )
    record = {
        "benchmark": FAMILIES[content.family].title,
        "architectures": len(content),
        "columns": len(content.columns),
        "output": str(output),
        "bytes": output.stat().st_size,
        "seconds": time.perf_counter() - start,
    }
    if json:
        return console.print_json(record)
    console.say(
        f"{record['benchmark']}: {counted(len(content), 'architecture')}, "
        f"{counted(len(content.columns), 'column')} in {output} "
        f"({output.stat().st_size / 1e6:.1f} MB, {record['seconds']:.0f} s)"
    )
    return None


@app.command("info")
def info(
    file: Annotated[
        str, typer.Argument(help="A file of 'pynas tables convert', another .npz, or what --table takes.")
    ],
    space: Annotated[
        str | None, typer.Option(help="Space of the architectures, where the file does not say.")
    ] = None,
    json: flags.Json = False,
) -> None:
    """Show what a table holds: data sets, metrics, training lengths, runs, missing values.

    Examples:
      pynas tables info nats-tss.npz
      pynas tables info analog
    """
    from pynas import spaces
    from pynas.tables import FAMILIES, inspect

    content = inspect(file, None if space is None else spaces.get(space))
    columns: list[dict[str, Any]] = []
    for column, array in content.columns.items():
        known = np.isfinite(array)
        columns.append(
            {
                "dataset": column.dataset,
                "metric": column.metric,
                "epochs": column.epochs,
                "runs": list(column.seeds),
                "unit": column.unit,
                "known": int((known if known.ndim == 1 else known.any(axis=1)).sum()),
                "values": int(known.sum()),
            }
        )
    family = FAMILIES[content.family]
    if json:
        return console.print_json(
            {
                "benchmark": family.title,
                "spaces": list(family.spaces),
                "source": content.source,
                "architectures": len(content),
                "columns": columns,
            }
        )
    where = f" of {' and '.join(family.spaces)}" if family.spaces else ""
    console.say(f"{family.title} from {content.source}: {counted(len(content), 'architecture')}{where}")
    console.print_table(
        file if file == "analog" else Path(file).name,
        ["data set", "metric", "epochs", "unit", "runs", "known", "missing", "values"],
        [
            (
                c["dataset"],
                c["metric"],
                c["epochs"],
                c["unit"],
                ", ".join(map(str, c["runs"])),
                c["known"],
                len(content) - c["known"],
                c["values"],
            )
            for c in columns
        ],
    )
    return None
