"""Runs readers on dangerous input: in processes with limits, with the outcome as one line."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from pynas._errors import UserError, printable
from pynas._plural import counted

SECONDS = 2.0
"""Processor time for one input."""

PATIENCE = 10.0
"""Wall-clock seconds without output from a process that reads inputs; it may be waiting for something."""

MEMORY = 1 << 30
"""Bytes of address space that a process may take in addition while it reads."""

MESSAGE = 700
"""Largest length of an error message, in characters."""

Write = Callable[[bytes], object]


def in_child(work: Callable[[Write], None]) -> tuple[bytes, str]:
    """Call ``work`` in a fork of this process, with limits.

    Args:
        work: Takes a function that writes bytes to this process.

    Returns:
        What was written, and how the process died; an empty text if it ended normally.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others, which this process won't use
        child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            limit()
            work(lambda content: os.write(writer, content))
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writer)
    output = b""
    slow = True
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], PATIENCE)[0]:
            piece = pipe.read(1 << 16)
            if not piece:
                slow = False
                break
            output += piece
    if slow:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if slow or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
        return output, f"it took more than {SECONDS:g} s" + (", waiting" if slow else "")
    if os.WIFSIGNALED(status):
        return output, f"the process died of {signal.Signals(os.WTERMSIG(status)).name}"
    return output, f"the process ended with code {os.WEXITSTATUS(status)}" if status else ""


def limit() -> None:
    """In a child: suppress output, use one thread, limit memory, and turn warnings into errors."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a fork does not copy the threads of its pool
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[0])
        bound = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    warnings.simplefilter("error")


@contextlib.contextmanager
def timed() -> Iterator[None]:
    """In a child: end the process if the block takes too long."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def verdict(
    run: Callable[[], object],
    accepted: tuple[type[Exception], ...] = (UserError,),
    name: str = "",
    echoed: int = 0,
) -> tuple[str, str]:
    """What is wrong with the outcome of ``run``, or an empty text; and the kind of outcome.

    Args:
        run: Reads an input.
        accepted: Documented errors for bad input.
        name: Name of the file, which these errors must contain.
        echoed: Bytes of a user's own text that a message may repeat, including line ends; 0 for files.
    """
    try:
        run()
    except accepted as error:
        way = f"{type(error).__name__} at {where(error)}: {skeleton(str(error))}"
        return _refusal(error, name, echoed), way
    except BaseException as error:
        finding = f"{type(error).__name__}: {_shown(str(error))} at {where(error)}"
        return finding, finding
    return "", "read"


def _refusal(error: BaseException, name: str, echoed: int) -> str:
    message, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, MemoryError):
            return f"it asked for more than {MEMORY >> 20} MiB of memory at {where(cause)}"
        cause = cause.__cause__ or cause.__context__
    for fault in (
        "does not name the file" if name not in message else "",
        "is not one line of printable text" if printable(message, lines=echoed > 0) != message else "",
        f"has {counted(len(message), 'character')}" if len(message) > MESSAGE + 20 * echoed else "",
    ):
        if fault:
            return f"the message {fault}, at {where(error)}: {_shown(message)}"
    return ""


def where(error: BaseException) -> str:
    """The line of pynas that was running, or of its tests if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    package, tests = f"{os.sep}pynas{os.sep}", f"{os.sep}testing{os.sep}"
    ours = [frame for frame in frames if package in frame.filename and tests not in frame.filename]
    last = (ours or frames)[-1]
    return f"{last.filename.rpartition(package)[2]}:{last.lineno}"


def skeleton(text: str) -> str:
    """The text without numbers and quotations, by which similar messages compare equal."""
    return re.sub(r"0x[0-9a-f]+|[0-9]+|'[^']*'|\"[^\"]*\"", "#", text)[:200]


def _shown(text: str) -> str:
    line = text.encode("unicode_escape").decode()
    return line if len(line) <= 160 else line[:120] + " ... " + line[-35:]
