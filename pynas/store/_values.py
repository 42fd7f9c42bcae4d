"""The values in a store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Escapes in JSON: a surrogate pair, half a pair, any other.
_ESCAPE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|u(d[89a-f]..)|.)")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration of a search, which identifies it: equal configurations give the same trials.

    Attributes:
        space: Name of the search space.
        strategy: Name of the search strategy.
        seed: Seed of the strategy.
        objectives: Names of the scores to maximise.
        constraints: Upper bounds by name of the cost.
        config: Everything else that proposals or scores depend on, as a JSON object: options of the space and
            of the strategy, the evaluator's settings, data, table.
    """

    space: str
    strategy: str
    seed: int
    objectives: tuple[str, ...]
    constraints: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """A hash of the configuration, unchanged by storing and loading."""
        kept = json.loads(to_json(self._record()))  # in JSON, keys are texts, and sorted as such
        return hashlib.sha256(to_json(kept).encode()).hexdigest()

    def _record(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def differences(self, other: RunConfig) -> list[str]:
        """One phrase per different setting, such as ``seed: 1 instead of 0``, in alphabetical order."""
        mine, theirs = (dict(_leaves(json.loads(to_json(c._record())))) for c in (self, other))
        return [
            f"{name}: {json.dumps(mine.get(name))} instead of {json.dumps(theirs.get(name))}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]


@dataclass(frozen=True, slots=True)
class Run:
    """A search: its configuration, its provenance, and its number in the store (None outside one)."""

    id: int | None
    config: RunConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody did to a search while it ran.

    Attributes:
        number: Its number in the run, from 0.
        trial: It took effect before the trial with this number.
        step: It took effect before the training step of the supernet with this number; 0 without a supernet.
        kind: What was done, such as ``forbid``.
        fields: With what, as a JSON object.
        who: Who did it.
        time: When, as ISO 8601 in UTC; nothing depends on it.
    """

    number: int
    trial: int
    step: int
    kind: str
    fields: Mapping[str, Any]
    who: str
    time: str


def to_json(value: object) -> str:
    """Compact JSON in ASCII with sorted keys; ValueError for NaN and infinity.

    Half a surrogate pair, as in a file name that is not UTF-8, is spelled out: few JSON readers accept it.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if "\\ud" not in text:
        return text
    return _ESCAPE.sub(lambda match: rf"\\u{match[1]}" if match[1] else match[0], text)


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of a nested JSON object."""
    if isinstance(value, dict) and (value or not name):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
