"""Names to objects, for spaces, strategies, proxies and statistics."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from pynas._errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from public names to objects that refuses duplicates and explains unknown names.

    Args:
        kind: What is registered, in the singular, for messages ("proxy", "search space").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._objects: dict[str, T] = {}

    def register(self, name: str, obj: T) -> T:
        """Add ``obj`` under ``name``; a name that is taken raises ValueError."""
        if name in self._objects:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> T:
        """Return the object called ``name``; an unknown name raises UserError with the choices."""
        try:
            return self._objects[name]
        except KeyError:
            close = difflib.get_close_matches(name, self._objects, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}.{hint}"
            ) from None

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._objects))

    def __contains__(self, name: object) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._objects)
