"""Descriptions of objects that change while a search uses them: counters, logs, what they remember.

Such a change must not make the same object another one when the search goes on in the same process; a change
that somebody makes between two searches must. So what an object was like is kept from the beginning of a
search to its end, and an object that is as the last search left it counts as what it was before that.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

_LAST: dict[tuple[int, str], tuple[weakref.ref[Any], Any, Any]] = {}
"""By object: itself, its description before its last search, and after it."""


class Described:
    """An object's description as it was before any search of this process.

    Args:
        subject: The object.
        describe: What describes it.
    """

    def __init__(self, subject: Any, describe: Callable[[Any], Any]) -> None:
        self._subject, self._describe = subject, describe
        self.description = describe(subject)
        owner, before, after = _LAST.get(self._key, (None, None, None))
        if owner is not None and owner() is self._owner and after == self.description:
            self.description = before

    @property
    def _owner(self) -> Any:
        """What lives on between searches: of a bound method its instance."""
        return self._subject.__self__ if isinstance(self._subject, types.MethodType) else self._subject

    @property
    def _key(self) -> tuple[int, str]:
        return id(self._owner), self._subject.__name__ if isinstance(self._subject, types.MethodType) else ""

    def searched(self) -> None:
        """Note how a search has left the object."""
        key = self._key
        try:
            owner = weakref.ref(self._owner, lambda _: _LAST.pop(key, None))
        except TypeError:  # nothing can tell whether it is still the same object
            return
        _LAST[key] = (owner, self.description, self._describe(self._subject))
