"""What a user-defined space was made with, by which a store tells spaces of one name apart."""

from __future__ import annotations

import inspect
from typing import Any, Self

from pynas._identity.description import brief

ARGUMENTS = "_made_with"
"""Name of the attribute that describes the arguments of a user-defined space."""


def is_published(kind: type) -> bool:
    """Whether a space is part of pynas, so that its name and options identify it."""
    return kind.__module__.startswith("pynas.spaces.")


def _arguments(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        given = inspect.signature(kind).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the constructor's own error is better; or it has no signature
        given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    return {name: brief(value) for name, value in given.items()}


class Noted:
    """Records the arguments of a user-defined space, by which a store tells spaces of one name apart.

    A base of :class:`~pynas.spaces.SearchSpace`, so that a space has the signature of its ``__init__``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        space = super().__new__(cls)
        if (args or kwargs) and not is_published(cls):
            space.__dict__[ARGUMENTS] = _arguments(cls, args, kwargs)
        return space
