"""What an analyst can change while a search runs, and how an action changes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pynas._errors import UserError
from pynas.spaces import SearchSpace, restrict

Allowed = tuple[tuple[int, ...], ...]


class Refused(UserError):  # noqa: N818  (an answer, not a fault)
    """Understood, and refused: nothing was changed."""


class Malformed(UserError):  # noqa: N818
    """Not an action: an unknown kind, or a field that is missing, unknown or of the wrong type.

    Attributes:
        argument: The field.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


@dataclass(frozen=True)
class Settings:
    """Everything that decides about the next proposals and can be changed.

    Attributes:
        allowed: The allowed choices of each decision.
        strategy: Name of the strategy.
        options: Its options.
        budget: Total number of trials.
        bounds: Upper bounds by name of the cost.
        weights: Weights of the objectives, whose weighted sum the strategy maximises; None leaves several
            objectives to the strategy.
    """

    allowed: Allowed
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: int = 0
    bounds: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None


def everything(space: SearchSpace) -> Allowed:
    """All choices of all decisions."""
    return tuple([tuple(range(count)) for count in space.num_choices])


def space_of(parent: SearchSpace, allowed: Allowed) -> SearchSpace:
    """``parent`` with these choices only; itself if they are all."""
    return parent if allowed == everything(parent) else restrict(parent, allowed)


def is_allowed(allowed: Allowed, decisions: Sequence[int]) -> bool:
    """Whether every decision is an allowed choice."""
    return all(decision in choices for decision, choices in zip(decisions, allowed, strict=True))


def combined(settings: Settings, kind: str, fields: Mapping[str, Any]) -> Settings:
    """The settings after an action of one of the kinds in :data:`CHANGES`; fields as the store has them."""
    return CHANGES[kind](settings, fields)


def block_id(decision: int, choice: int) -> str:
    """``3:2`` is choice 2 of decision 3."""
    return f"{decision}:{choice}"


def pairs(blocks: Iterable[str]) -> list[tuple[int, int]]:
    """Decision and choice of each block."""
    return [(int(left), int(right)) for left, _, right in (block.partition(":") for block in blocks)]


def _without(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    gone = set(pairs(fields["blocks"]))
    allowed = [
        tuple([choice for choice in choices if (decision, choice) not in gone])
        for decision, choices in enumerate(settings.allowed)
    ]
    return replace(settings, allowed=tuple(allowed))


def _only(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    forced = dict(pairs(fields["blocks"]))
    allowed = [
        (forced[decision],) if decision in forced else choices
        for decision, choices in enumerate(settings.allowed)
    ]
    return replace(settings, allowed=tuple(allowed))


def _with(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    back = pairs(fields["blocks"])
    allowed = [
        tuple(sorted({*choices, *(choice for at, choice in back if at == decision)}))
        for decision, choices in enumerate(settings.allowed)
    ]
    return replace(settings, allowed=tuple(allowed))


def _within(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    allowed = [
        tuple([choice for choice in choices if choice in kept])
        for choices, kept in zip(settings.allowed, fields["choices"], strict=True)
    ]
    return replace(settings, allowed=tuple(allowed))


CHANGES: dict[str, Callable[[Settings, Mapping[str, Any]], Settings]] = {
    "forbid": _without,
    "force": _only,
    "allow": _with,
    "restrict": _within,
    "fix": _only,
    "forbid_common": _without,
    "strategy": lambda s, f: replace(s, strategy=f["name"], options=dict(f["options"])),
    "budget": lambda s, f: replace(s, budget=f["trials"]),
    "constraints": lambda s, f: replace(s, bounds=dict(f["bounds"])),
    "weights": lambda s, f: replace(s, weights=None if f["weights"] is None else dict(f["weights"])),
}
"""The kinds of action that change settings, can be previewed, and are undone."""


def shared(candidates: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Decisions and choices that all candidates have in common."""
    return [
        (decision, column[0])
        for decision, column in enumerate(zip(*candidates, strict=True))
        if len(set(column)) == 1
    ]


def finite(value: object) -> bool:
    """Whether it is a number that is neither NaN nor infinite."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False
