"""What commands print: JSON for machines, text, tables and progress for people.

Files and stores may hold names from anybody, so all text goes through :func:`printable`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
)
from rich.table import Column, Table
from rich.text import Text

from pynas._errors import UserError, UserNotice, printable


def say(text: str) -> None:
    """Print a line for people."""
    with printing():
        print(printable(text))


def note(text: str) -> None:
    """Print a line on stderr: what somebody should know, and no result."""
    with contextlib.suppress(OSError):
        print(printable(f"pynas: {text}", lines=True), file=sys.stderr)


@contextmanager
def notices() -> Iterator[None]:
    """Print each :class:`UserNotice` that is warned of as a line on stderr, once."""
    with warnings.catch_warnings():
        others = warnings.showwarning
        shown: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, UserNotice):
                others(message, category, *where, **more)
            elif str(message) not in shown:
                shown.add(str(message))
                note(str(message))

        warnings.showwarning = show
        warnings.simplefilter("always", UserNotice)
        yield


@contextmanager
def printing() -> Iterator[None]:
    """Surround code that prints: report a full disk to the user, and end quietly on a closed pipe.

    A closed pipe is no failure, since its reader, such as head, has seen enough. An OSError would not do to
    end the command: typer makes it exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        abandon_stdout()
        raise SystemExit(0) from None
    except OSError as error:
        abandon_stdout()
        raise UserError(f"standard output: cannot write: {error.strerror}") from error


def abandon_stdout() -> None:
    """Discard what is left to print, so that the interpreter does not fail on it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON; NaN and infinities become null."""
    with printing():
        print(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns of numbers are right-aligned, and nothing is cut off in a pipe."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    table = Table(title=printable(title), title_justify="left", title_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(printable(name), justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    with printing():
        console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def _is_number(text: str) -> bool:
    return (
        text == "-"
        or text.replace(",", "").replace(".", "").replace("-", "").replace("e", "").replace("+", "").isdigit()
    )


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps what goes into a pipe or a file."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


class _Console(Console):
    """A console that leaves a closed pipe to :func:`printing`; rich's own ends with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise


def progress(*, quiet: bool = False) -> Bars:
    """Progress on stderr, of tasks with a free text ``note``; silent when asked to be.

    A line for each task with how much is done, how long it took and how long it will take, and below it a
    line for its note, so that all of it can be read on 80 columns.
    """
    shown = console(stderr=True)
    narrow = shown.width <= _WIDE
    return Bars(
        _TextColumn(lambda task: task.description, widest=40),
        BarColumn(bar_width=None if narrow else 40),
        MofNCompleteColumn(),
        _TextColumn(_times),
        console=shown,
        expand=narrow,
        disable=quiet,
    )


_WIDE = 100  # columns


class Bars(Progress):
    """Notes on lines of their own; remembers where each task began, which is not zero when it is resumed."""

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """As rich's own."""
        return super().add_task(description, start, total, completed, visible, begun=completed, **fields)

    def begin(self, task: TaskID, completed: int, note: str = "") -> None:
        """Start the clock of a task of which so much was done before."""
        self.reset(task, completed=completed, begun=completed, note=note)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, and the notes below them."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {printable(task.fields['note'])}", no_wrap=True, overflow="ellipsis")


def _times(task: Task) -> str:
    elapsed = task.finished_time if task.finished else task.elapsed
    if elapsed is None:
        return ""
    # rich looks at the last half minute only, in which a slow trial does not end.
    done = task.completed - task.fields["begun"]
    if task.finished or task.total is None or done <= 0:
        return f"{_clock(elapsed)} passed"
    return f"{_clock(elapsed)} passed, {_clock(elapsed / done * (task.total - task.completed))} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _TextColumn(ProgressColumn):
    """Text of a task, without markup."""

    def __init__(self, text: Callable[[Task], str], widest: int | None = None) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", max_width=widest))
        self._text = text

    def render(self, task: Task) -> Text:
        """The column's cell."""
        return Text(printable(self._text(task)))
