"""The ``pynas`` command: bad input gives one line on stderr and exit code 2, ``--json`` data on stdout."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pynas import __version__
from pynas._errors import UserError, is_out_of_memory, printable
from pynas._io.atomic import remove_partial
from pynas.cli import (
    _guard,
    _help,
    analyze,
    bench,
    console,
    embed,
    export,
    hardware,
    info,
    rank,
    recurrent,
    report,
    score,
    search,
    steer,
    supernet,
    tables,
)

app = typer.Typer(
    name="pynas",
    help="Neural architecture search in PyTorch: search spaces, zero-shot proxies, fused C++/CUDA kernels.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        console.say(f"pynas {__version__}")
        raise typer.Exit


@app.callback()
def pynas(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Neural architecture search in PyTorch: search spaces, zero-shot proxies, fused C++/CUDA kernels."""


app.command("search")(search.search)
app.command("score")(score.score)
app.command("rank")(rank.rank)
app.command("supernet")(supernet.supernet)
app.command("recurrent")(recurrent.recurrent)
app.command("embed")(embed.embed)
app.command("steer")(steer.steer)
app.command("replay")(steer.replay)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.add_typer(analyze.app, name="analyze")
app.add_typer(tables.app, name="tables")
app.add_typer(hardware.app, name="hardware")
app.command("spaces")(info.spaces)
app.command("proxies")(info.proxies)
app.command("doctor")(info.doctor)
_help.keep_examples(app)
_guard.guard(app)


def main() -> None:
    """Run the command line; see ``pynas --help``."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start: discard what is written
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    with _tidy_when_ended(), _told(), console.notices():
        sys.exit(_run())


@functools.cache
def _parser(word: str) -> Any:
    """What reads a command line whose first word this is.

    Typer makes a parser of every option of every command, a tenth of a second, so it sees the one command
    alone where the word is one.
    """
    found = copy.copy(app)
    found.registered_commands = [command for command in app.registered_commands if command.name == word]
    found.registered_groups = [group for group in app.registered_groups if group.name == word]
    return typer.main.get_command(found if found.registered_commands or found.registered_groups else app)


def _run() -> int:
    """Run a command, report an error if there is one, and return the exit code."""
    try:
        is_completion = any(name.endswith("_PYNAS_COMPLETE") for name in os.environ)
        parser = _parser("" if is_completion or len(sys.argv) < 2 else sys.argv[1])
        code = parser(standalone_mode=False)
        with console.printing():
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _failed(str(error))
    except typer.Abort:
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        return 0
    except OSError as error:
        if error.strerror is None:
            if is_out_of_memory(error):
                return _no_memory(error)
            raise
        named = f"{error.filename}: " if error.filename is not None else ""
        return _failed(f"{named}{error.strerror}")
    except Exception as error:
        if is_out_of_memory(error):
            return _no_memory(error)
        usage: Any = error
        if not hasattr(error, "format_message"):  # those that have it are wrong options: typer shows them
            raise
        usage.message = printable(usage.message, lines=True)
        usage.show()
        return int(usage.exit_code)


def _no_memory(error: Exception) -> int:
    what = (str(error).strip().splitlines() or ["no more of it"])[0]
    return _failed(f"not enough memory ({what}); what was stored so far can be resumed")


def _failed(message: str) -> int:
    with contextlib.suppress(OSError):
        print(printable(f"pynas: {message}", lines=True), file=sys.stderr)
    return 2


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Print warnings about what a user gave as one line, without the code that found it."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is not UserWarning:
            return shown(message, category, *where, **more)
        with contextlib.suppress(OSError):
            print(printable(f"pynas: {message}", lines=True), file=sys.stderr)
        return None

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


@contextlib.contextmanager
def _tidy_when_ended() -> Iterator[None]:
    """Leave no half-written files when a signal ends the process."""

    def end(number: int, frame: object) -> None:
        remove_partial()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    ours = threading.current_thread() is threading.main_thread()
    replaced = [s for s in signals if ours and signal.getsignal(s) is signal.SIG_DFL]
    for each in replaced:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in replaced:
            signal.signal(each, signal.SIG_DFL)
