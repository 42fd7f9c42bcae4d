"""What happened in a search, numbered, for whoever follows it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynas.steer._documents import finite

KEPT = 4000
"""So many events are kept for those who come back."""


@dataclass(frozen=True)
class Event:
    """Something that happened: its number, its kind, and its data as JSON."""

    revision: int
    kind: str
    data: str


class Log:
    """The newest events, from any thread.

    Attributes:
        revision: Number of the newest event.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def publish(self, kind: str, make: Callable[[int], Any]) -> None:
        """Add an event, whose data ``make`` makes of its number, and tell all who listen."""
        with self._lock:
            data = finite(make(self.revision + 1))
            text = json.dumps(data, separators=(",", ":"), allow_nan=False)
            self.revision += 1
            self._events.append(Event(self.revision, kind, text))
        self.wake()

    def wake(self) -> None:
        """Tell all who listen to look."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each event, in any thread, until what this returns is called."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop

    def since(self, revision: int) -> list[Event] | None:
        """The events after a number, in order; None if some are no longer kept, or it is not known."""
        with self._lock:
            missing = self.revision - revision
            if revision < 0 or not 0 <= missing <= len(self._events):
                return None
            return list(self._events)[len(self._events) - missing :] if missing else []
