"""What happened in a search, numbered, for whoever follows it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pynas.steer._documents import finite

KEPT = 4000
"""So many events are kept for those who come back."""

WHOLE = ("state", "blocks")
"""Kinds whose newest event says all that those before it said: only that one is kept."""


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
        self._whole: dict[str, int] = {}
        self._listeners: list[Callable[[], None]] = []

    def publish(self, kind: str, make: Callable[[int], Any]) -> None:
        """Add an event, whose data ``make`` makes of its number, and tell all who listen.

        However slowly somebody reads, what is kept is bounded: by ``KEPT`` events, of which one is a state.
        """
        with self._lock:
            data = finite(make(self.revision + 1))
            text = json.dumps(data, separators=(",", ":"), allow_nan=False)
            self.revision += 1
            if kind in WHOLE:
                self._forget(self._whole.get(kind, 0))
                self._whole[kind] = self.revision
            self._events.append(Event(self.revision, kind, text))
        self.wake()

    def _forget(self, revision: int) -> None:
        place = len(self._events) - (self.revision - revision)  # the new one has its number and no place yet
        if 0 <= place < len(self._events):
            self._events[place] = Event(revision, "", "")

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
            newest = [event for event in islice(reversed(self._events), missing) if event.kind]
            return newest[::-1]
