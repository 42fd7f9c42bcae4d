"""The ``pynas`` command: bad input gives one line on stderr and exit code 2, ``--json`` data on stdout."""

from __future__ import annotations

import sys

import typer

from pynas._errors import UserError
from pynas.cli import (
    analyze,
    bench,
    embed,
    hardware,
    info,
    rank,
    recurrent,
    report,
    score,
    search,
    supernet,
    tables,
)

app = typer.Typer(
    name="pynas",
    help="Neural architecture search in PyTorch: search spaces, zero-shot proxies, fused C++/CUDA kernels.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("search")(search.search)
app.command("score")(score.score)
app.command("rank")(rank.rank)
app.command("supernet")(supernet.supernet)
app.command("recurrent")(recurrent.recurrent)
app.command("embed")(embed.embed)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.add_typer(analyze.app, name="analyze")
app.add_typer(tables.app, name="tables")
app.add_typer(hardware.app, name="hardware")
app.command("spaces")(info.spaces)
app.command("proxies")(info.proxies)
app.command("doctor")(info.doctor)


def main() -> None:
    """Run the command line; see ``pynas --help``."""
    try:
        app()
    except UserError as error:
        print(f"pynas: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)
