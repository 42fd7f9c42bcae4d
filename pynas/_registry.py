"""Names to objects, for spaces, strategies, proxies and statistics."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pynas import _named
from pynas._errors import UserError, UserNotice

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from public names to objects that refuses duplicates and explains unknown names.

    With ``group``, what installed packages offer as entry points of that group stands beside what was
    registered; it is imported when it is asked for.

    Args:
        kind: What is registered, in the singular, for messages ("proxy", "search space").
        group: Name of the group of entry points.
        adopt: ``adopt(name, object)`` makes what is registered of what an entry point names, or raises.
    """

    def __init__(
        self, kind: str, group: str | None = None, adopt: Callable[[str, Any], T] = lambda _, found: found
    ) -> None:
        self.kind = kind
        self.group = group
        self._adopt = adopt
        self._objects: dict[str, T] = {}

    def register(self, name: str, obj: T) -> T:
        """Add ``obj`` under ``name``; a name that is taken raises ValueError."""
        if name in self._objects:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._objects[name] = obj
        return obj

    def replace(self, name: str, obj: T) -> T:
        """Add ``obj`` under ``name``, in place of what was there."""
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> T:
        """Return the object called ``name``.

        Raises:
            UserError: There is none, with the choices; or it is an entry point that does not load.
        """
        if name in self._objects:
            return self._objects[name]
        offered = self._offered()
        if name in offered:
            return self._objects.setdefault(name, _named.load_offered(offered[name], self._adopt))
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}.{hint}")

    def names(self) -> tuple[str, ...]:
        """All names, sorted; those of entry points too, loaded or not."""
        return tuple(sorted({*self._objects, *self._offered()}))

    def loaded(self) -> Mapping[str, T]:
        """What was registered or asked for so far, by name."""
        return MappingProxyType(self._objects)

    def working(self) -> dict[str, T]:
        """All objects by name; an entry point that does not load is left out, with a warning."""
        found: dict[str, T] = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except UserError as error:
                warnings.warn(f"{self.kind} {name!r} is left out: {error}", UserNotice, stacklevel=2)
        return found

    def _offered(self) -> dict[str, Any]:
        return {} if self.group is None else _named.offered(self.group)

    def __contains__(self, name: object) -> bool:
        return name in self._objects or name in self._offered()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
