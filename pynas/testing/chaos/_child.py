"""The process of a job: ``python -m pynas.testing.chaos._child FOLDER LOAD JOB ARGUMENTS...``.

Events, at which a fault can be exact or from which it is a few milliseconds away: that the job begins, each
statement and commit of a store, each trial that a search calls done, and each file in ``FOLDER`` that is
opened for writing, renamed or removed.
"""

from __future__ import annotations

import atexit
import functools
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pynas.testing.chaos._control import VARIABLE, Control
from pynas.testing.chaos._start import note_modules, serve

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _observe(control: Control, folder: str) -> Callable[[], None]:
    """Count events from here on; returns what counts one."""
    owner = os.getpid()

    def event() -> None:
        if os.getpid() != owner:
            return
        control.events += 1
        exact, number = control.armed
        if exact and control.events == exact:
            control.arm(0, 0)
            os.kill(owner, number)

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if not flags & _WRITES:
                return
        elif name in ("os.rename", "os.remove"):
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder):
            event()

    sys.addaudithook(audit)
    return event


def _observe_searches(control: Control, event: Callable[[], None]) -> None:
    """Count statements, commits and trials of every search."""
    import sqlalchemy

    import pynas

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", lambda *_: event())
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda _: event())
    search: Callable[..., Any] = pynas.search

    @functools.wraps(search)
    def counted(*arguments: Any, on_trial: Any = None, **options: Any) -> Any:
        def done(trial: Any) -> None:
            control.trials = trial.number + 1
            event()
            if on_trial is not None:
                on_trial(trial)

        return search(*arguments, on_trial=done, **options)

    vars(pynas)["search"] = counted


def _step_clock(control: Control) -> None:
    """Let ``time.time`` be off by what ``control`` says; monotonic clocks are never stepped."""
    seconds, nanoseconds = time.time, time.time_ns
    vars(time)["time"] = lambda: seconds() + control.clock
    vars(time)["time_ns"] = lambda: nanoseconds() + int(1e9 * control.clock)


def main(order: Sequence[str]) -> None:
    """Do a job under observation; its modules are noted at the end of the first one."""
    folder, load, job, *arguments = order
    path = Path(os.environ[VARIABLE])
    control = Control(path)
    _step_clock(control)
    atexit.register(note_modules, path.parent)
    event = _observe(control, folder)
    if load:
        runpy.run_path(load)
    if job == "pynas":
        from pynas.cli import main as command

        _observe_searches(control, event)
        sys.argv = ["pynas", *arguments]
        event()
        command()
        return
    from pynas._errors import UserError, is_out_of_memory
    from pynas.testing.chaos import _work

    _observe_searches(control, event)
    event()
    try:
        _work.WORK[job](Path(folder), *arguments)
    except Exception as error:
        if not (isinstance(error, UserError) or is_out_of_memory(error)):
            raise
        print(f"pynas: {str(error) or 'not enough memory'}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__mp_main__" and VARIABLE in os.environ:  # a worker
    _step_clock(Control(Path(os.environ[VARIABLE])))
if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve(main)
    else:
        main(sys.argv[1:])
