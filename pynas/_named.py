"""Objects by name: those that ``package.module:object`` names, and the entry points of installed packages."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pynas._errors import UserError

FORM = "package.module:object"
_PATH = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def is_path(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:object``; attributes of the object may follow."""
    return _PATH.fullmatch(text) is not None


def load(text: str, what: str) -> Any:
    """Import ``package.module:object``, also from the current folder, as ``python -m`` does.

    Args:
        text: Module and object.
        what: Start of messages: the option or argument that named it.

    Raises:
        UserError: It has another form, there is no such module or object, or importing it raises; the
            message says which.
    """
    match = _PATH.fullmatch(text)
    if match is None:
        raise UserError(f"{what}: expected {FORM}, got {text!r}")
    found: Any = _module(match["module"], what)
    for name in match["name"].split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, vars(found) if hasattr(found, "__dict__") else (), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has: {_public(found)}"
            raise UserError(f"{what}: {match['module']!r} has no {name!r}{hint}")
        found = getattr(found, name)
    return found


def _module(name: str, what: str) -> Any:
    with _current_folder():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(
                    f"{what}: there is no module {error.name!r} in the current folder or installed"
                ) from error
            raise UserError(f"{what}: {_raised(name, error)}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a script may also end the process
            raise UserError(f"{what}: {_raised(name, error)}") from error


def _raised(name: str, error: BaseException) -> str:
    """What importing a module raised, and the last line of the user's code that it passed."""
    if isinstance(error, SyntaxError):
        return f"importing {name!r} raised SyntaxError: {error}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    ours = [f for f in frames if os.path.abspath(f.filename) != os.path.abspath(__file__)]
    at = f" at {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else ""
    return f"importing {name!r} raised {type(error).__name__}: {error}{at}"


def _public(found: Any) -> str:
    names = [name for name in getattr(found, "__dict__", ()) if not name.startswith("_")]
    return ", ".join(names[:12]) or "nothing public"


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder before all others while a module is imported, after all others from then on.

    Later, so that workers and imports within functions find it too and it shadows nothing.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


@cache
def offered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, as installed packages declare them; none is loaded.

    Of several with one name the first by its package counts.
    """
    found = sorted(entry_points(group=group), key=lambda point: (point.name, point.value))
    return {point.name: point for point in reversed(found)}


def origin(point: EntryPoint) -> str:
    """Where an entry point comes from, for messages."""
    package = "" if point.dist is None else f" of the package {point.dist.name}"
    return f"entry point {point.name} = {point.value}{package}"


def load_offered(point: EntryPoint, adopt: Callable[[str, Any], Any]) -> Any:
    """The object of an entry point, as ``adopt(name, object)`` takes it.

    Raises:
        UserError: It cannot be imported, or ``adopt`` refuses it; the message names the package.
    """
    try:
        return adopt(point.name, point.load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of somebody else's package
        raise UserError(f"{origin(point)}: {type(error).__name__}: {error}") from error
