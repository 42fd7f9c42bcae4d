"""Spaces by text: a name with options, a template's file, or an object of the user's own module."""

from __future__ import annotations

import inspect
from typing import Any

from pynas import _named
from pynas._errors import UserError
from pynas.spaces.base import SPACES, SearchSpace
from pynas.spaces.template import TemplateSpace


def open_space(text: str, what: str = "space") -> SearchSpace:
    """The space that a text names.

    Args:
        text: ``NAME`` or ``NAME:option=value,option=value``; ``template:FILE``; or ``package.module:object``,
            a space, a class of spaces, or a function without arguments that returns one.
        what: Start of messages: the argument or option that has the text.

    Raises:
        UserError: There is no such space, or it has no such option; the message lists them. There is no such
            file or object, or it is no space.
    """
    name, _, rest = text.partition(":")
    if name == TemplateSpace.name:
        return TemplateSpace.open(rest)
    if name not in SPACES and _named.is_path(text):
        return _own(text, what)
    make = SPACES.get(name)
    parameters = inspect.signature(make).parameters
    known = {key: parameter.default for key, parameter in parameters.items()}
    options: dict[str, Any] = {}
    for part in (part.strip() for part in rest.split(",") if part.strip()):
        option, separator, value = part.partition("=")
        if option not in known or not separator:
            listed = ", ".join(f"{key}={default}" for key, default in known.items()) or "none"
            raise UserError(f"{what}: expected NAME:option=value, got {part!r}; {name} has options {listed}")
        options[option] = _value(value)
    try:
        return make(**options)
    except TypeError as error:  # a value of the wrong type, which the constructor did not check
        raise UserError(f"{what} {text}: {error}") from error


def _own(text: str, what: str) -> SearchSpace:
    found = _named.load(text, what)
    if not isinstance(found, SearchSpace) and callable(found):
        try:
            found = found()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UserError(
                f"{what} {text}: called without arguments, it raised {type(error).__name__}: {error}"
            ) from error
    if isinstance(found, SearchSpace):
        return found
    raise UserError(
        f"{what} {text}: expected a search space such as pynas.spaces.custom makes, a class of them, or a "
        f"function that returns one, got {type(found).__name__}"
    )


def _value(text: str) -> Any:
    """``text`` as an integer, a float, a bool or itself."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
