"""What every command does alike: refuse numbers that are none, name options in errors, say how to go on."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import typer
from typer.models import ArgumentInfo

from pynas._errors import UserError, printable

# How the library calls what an option of another name sets.
_OF_THE_LIBRARY = {
    "objectives": "objective",
    "constraints": "constraint",
    "constraint": "constraint",
    "strategy_options": "option",
    "batch_size": "batch",
    "size": "image_size",
    "folder": "checkpoint",
}
_BITS = 63


def guard(app: typer.Typer) -> None:
    """Let every command under ``app`` do so."""
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _guarded(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            guard(group.typer_instance)


def options(command: Callable[..., Any]) -> dict[str, str]:
    """How each parameter of a command is called on the command line: ``--image-size``, ``OUTPUT``."""
    hints = get_type_hints(command, include_extras=True)
    called = {}
    for name in inspect.signature(command).parameters:
        about = next(iter(getattr(hints[name], "__metadata__", ())), None)
        if about is None:  # the context that typer passes
            continue
        called[name] = name.upper() if isinstance(about, ArgumentInfo) else f"--{name.replace('_', '-')}"
    return called


def _guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    called = options(command)

    @functools.wraps(command)
    def guarded(**values: Any) -> Any:
        for name, option in called.items():
            _check_number(option, values[name])
        try:
            return command(**values)
        except UserError as error:
            raise UserError(in_options(str(error), called)) from error
        except KeyboardInterrupt:
            _stopped(values)
            raise

    return guarded


def _check_number(option: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{option}: expected a finite number, got {value}")
    if isinstance(value, int) and not -(2**_BITS) <= value < 2**_BITS:
        raise UserError(f"{option}: expected a whole number of 64 bits, got {value}")


def in_options(message: str, called: Mapping[str, str]) -> str:
    """An error of the library with the options of this command in place of the names of its arguments.

    Args:
        message: Such as ``precision: expected one of ...``.
        called: What :func:`options` gives.
    """
    known = {**called, **{k: called[v] for k, v in _OF_THE_LIBRARY.items() if v in called}}

    def option(match: re.Match[str]) -> str:
        return known.get(match[0], match[0])

    message = re.sub(r"^[a-z_]+(?=: | '|\[)", option, message)
    # Elsewhere only what cannot be an English word, and is no part of a name or a path.
    return re.sub(r"(?<![\w./'\"=-])[a-z]+(?:_[a-z]+)+(?![\w./'\"(=-])", option, message)


def _stopped(values: Mapping[str, Any]) -> None:
    """On stderr after Ctrl-C: what was kept, and the command that goes on."""
    kept = next((values[name] for name in ("store", "checkpoint", "folder") if values.get(name)), None)
    if kept is None:
        if "store" in values and "resume" in values:
            _say("stopped; nothing was kept: with --store FILE a search can be stopped and resumed")
        return
    if not os.path.exists(str(kept)) and "://" not in str(kept):
        _say(f"stopped before anything was kept in {kept}")
        return
    arguments = [shlex.quote(printable(argument)) for argument in sys.argv[1:]]
    if "resume" in values and "--resume" not in arguments:
        arguments.append("--resume")
    _say(f"stopped; {_kept(str(kept), 'store' in values)}. To go on:\n  {' '.join(['pynas', *arguments])}")


def _kept(where: str, is_store: bool) -> str:
    if not is_store:
        return f"what was reached is kept in {where}"
    from pynas._plural import counted
    from pynas.store import Store

    try:
        with Store(where, read_only=True) as store:
            run = store.run()
            return f"{counted(len(store.trials(run)), 'trial')} of run {run.id} kept in {where}"
    except UserError as error:
        return f"what was reached is kept in {where} ({error})"


def _say(text: str) -> None:
    print(printable(f"pynas: {text}", lines=True), file=sys.stderr)
