"""The value that says what a network looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pynas._io import strict_json
from pynas._io.files import shortened

_INTEGERS = frozenset((int,))


@dataclass(frozen=True, slots=True)
class Architecture:
    """One point of a search space: frozen, hashable, JSON-serialisable, without weights.

    Attributes:
        space: Name of the search space that the decisions belong to.
        decisions: One integer per decision of that space, the index of the choice taken.
        notation: What a text that it was read from says beyond that, such as the order of two edges, by which
            published weights are named. No part of its identity, and neither compared nor stored.
    """

    space: str
    decisions: tuple[int, ...]
    notation: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        # Lists and numpy integers would break hashing and JSON far from the place that made them.
        if type(self.decisions) is not tuple or not _INTEGERS.issuperset(map(type, self.decisions)):
            object.__setattr__(self, "decisions", tuple(int(d) for d in self.decisions))

    @property
    def plain(self) -> Architecture:
        """The same without a notation."""
        return Architecture(self.space, self.decisions) if self.notation else self

    def to_json(self) -> str:
        """Serialise to a compact JSON object."""
        return json.dumps({"space": self.space, "decisions": self.decisions}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what :meth:`to_json` wrote; anything else raises ValueError."""
        try:
            match strict_json.loads(text):
                case {"space": str() as space, "decisions": [*decisions], **more} if not more:
                    if all(type(decision) is int for decision in decisions):
                        return cls(space, tuple(decisions))
            reason = ""
        except ValueError as error:
            reason = f": {error}"
        raise ValueError(
            'text: expected an architecture as {"space": ..., "decisions": [integers]}, '
            f"got {shortened(repr(text))}{reason}"
        )
