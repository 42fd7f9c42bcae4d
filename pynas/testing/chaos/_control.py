"""Numbers that a job's process and the disturbing process share without locks."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

VARIABLE = "PYNAS_CHAOS_CONTROL"
"""The environment variable with the path of the numbers, for a job and its workers."""

_FIELDS = ("events", "trials", "exact", "signal", "clock")
_EACH = 8


class Control:
    """Numbers in a file that is mapped into memory.

    Attributes:
        events: How often the job has come to a place where being disturbed is interesting.
        trials: How many trials the search has called done.
        exact: The event at which the job sends ``signal`` to itself; 0 for none.
        signal: Number of a signal.
        clock: Seconds by which the job's clock is off.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(_EACH * len(_FIELDS)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def _get(self, name: str) -> float:
        (value,) = struct.unpack_from("<d", self._map, _EACH * _FIELDS.index(name))
        return float(value)

    def _set(self, name: str, value: float) -> None:
        struct.pack_into("<d", self._map, _EACH * _FIELDS.index(name), value)

    @property
    def events(self) -> int:
        return int(self._get("events"))

    @events.setter
    def events(self, value: int) -> None:
        self._set("events", value)

    @property
    def trials(self) -> int:
        return int(self._get("trials"))

    @trials.setter
    def trials(self, value: int) -> None:
        self._set("trials", value)

    @property
    def clock(self) -> float:
        return self._get("clock")

    @clock.setter
    def clock(self, value: float) -> None:
        self._set("clock", value)

    def arm(self, event: int, signal: int) -> None:
        """Let the job send itself ``signal`` at this event, before it does what the event is about."""
        self._set("signal", signal)
        self._set("exact", event)

    @property
    def armed(self) -> tuple[int, int]:
        """Event and signal of :meth:`arm`."""
        return int(self._get("exact")), int(self._get("signal"))

    def reset(self) -> None:
        """All zero, for another process."""
        for name in _FIELDS:
            self._set(name, 0)
