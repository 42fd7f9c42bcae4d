"""Reads what somebody asks for: the fields of an action, checked and in the form that a store keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.steer._settings import Allowed, Malformed, Refused, Settings, block_id, finite, shared

MOST_CANDIDATES = 20_000
LONGEST_NAME = 64
LARGEST_WEIGHT = 1e100
"""Sums of products with weights of any size would overflow."""
LONGEST_TEXT = 20_000

FIELDS: dict[str, tuple[str, ...]] = {
    "forbid": ("blocks",),
    "force": ("blocks",),
    "allow": ("blocks", "decisions"),
    "restrict": ("candidates",),
    "fix": ("candidates",),
    "forbid_common": ("candidates",),
    "strategy": ("name", "options"),
    "budget": ("trials",),
    "constraints": ("bounds",),
    "weights": ("weights",),
    "add": ("text", "decisions"),
    "withdraw": ("decisions",),
    "pause": (),
    "resume": (),
    "stop": (),
    "cancel": (),
    "train": ("epochs",),
    "train_pause": (),
    "train_resume": (),
    "train_stop": (),
    "undo": ("of",),
    "redo": ("of",),
}
"""The fields that each kind of action takes."""


def read(space: SearchSpace, settings: Settings, kind: object, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an action as a store keeps them.

    Args:
        space: The whole space.
        settings: The present ones.
        kind: The kind of action.
        fields: What somebody gave.

    Raises:
        Malformed: It is no action.
        Refused: It cannot be done with the present settings.
    """
    if not isinstance(kind, str) or kind not in FIELDS:
        raise Malformed(f"kind: expected one of {', '.join(FIELDS)}, got {_shown(kind)}", "kind")
    for name in fields:
        if name not in FIELDS[kind]:
            takes = ", ".join(FIELDS[kind]) or "no fields"
            raise Malformed(f"{_shown(name)}: {kind} takes {takes}", name)
    reader = _READERS.get(kind)
    return {} if reader is None else reader(space, settings, fields)


def text_of(value: object, name: str, longest: int = LONGEST_NAME) -> str:
    """A short printable text."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        expected = f"printable characters, {longest} at most"
        raise Malformed(f"{name}: expected {expected}, got {_shown(value)}", name)
    return value


def decisions_of(space: SearchSpace, value: object, name: str = "decisions") -> Architecture:
    """The architecture of these decisions.

    Raises:
        Malformed: They are no list of integers.
        Refused: They are no architecture of the space.
    """
    if not isinstance(value, (list, tuple)) or not all(type(decision) is int for decision in value):
        raise Malformed(f"{name}: expected a list of integers, got {_shown(value)}", name)
    architecture = Architecture(space.name, tuple(value))
    try:
        space.check(architecture)
    except UserError as error:
        raise Refused(str(error)) from None
    return architecture


def _blocks(space: SearchSpace, fields: Mapping[str, Any]) -> list[str]:
    value = fields.get("blocks")
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(b, str) for b in value):
        raise Malformed(f"blocks: expected a list of ids such as '0:3', got {_shown(value)}", "blocks")
    for block in value:
        left, colon, right = block.partition(":")
        fits = colon and all(part.isascii() and part.isdigit() and len(part) < 6 for part in (left, right))
        if not fits or int(left) >= len(space.num_choices) or int(right) >= space.num_choices[int(left)]:
            raise Malformed(f"blocks: {_shown(block)} is no block of {space.name}", "blocks")
    return [block_id(int(b.partition(":")[0]), int(b.partition(":")[2])) for b in dict.fromkeys(value)]


def _forbid(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"blocks": _blocks(space, fields)}


def _force(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    blocks = _blocks(space, fields)
    forced: dict[str, str] = {}
    for block in blocks:
        decision, _, choice = block.partition(":")
        if forced.setdefault(decision, choice) != choice:
            raise Malformed(f"blocks: two choices of decision {decision}; only one can be forced", "blocks")
        if int(choice) not in settings.allowed[int(decision)]:
            raise Refused(f"choice {choice} of decision {decision} is forbidden; allow it first")
    return {"blocks": blocks}


def _allow(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    if ("blocks" in fields) == ("decisions" in fields):
        raise Malformed("allow: expected either blocks or decisions", "blocks")
    if "blocks" in fields:
        return {"blocks": _blocks(space, fields)}
    value, counts = fields["decisions"], space.num_choices
    if (
        not isinstance(value, (list, tuple))
        or not value
        or not all(type(decision) is int and 0 <= decision < len(counts) for decision in value)
    ):
        raise Malformed(
            f"decisions: expected numbers in 0..{len(counts) - 1}, got {_shown(value)}", "decisions"
        )
    return {"blocks": [block_id(i, choice) for i in sorted(set(value)) for choice in range(counts[i])]}


def _selection(space: SearchSpace, fields: Mapping[str, Any]) -> list[tuple[int, ...]]:
    value = fields.get("candidates")
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= MOST_CANDIDATES:
        what = f"a list of 1 to {MOST_CANDIDATES:,} lists of decisions"
        raise Malformed(f"candidates: expected {what}, got {_shown(value)}", "candidates")
    return [decisions_of(space, each, "candidates").decisions for each in value]


def _restrict(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    chosen = _selection(space, fields)
    kept = [sorted(set(column)) for column in zip(*chosen, strict=True)]
    for decision, (choices, allowed) in enumerate(zip(kept, settings.allowed, strict=True)):
        if not set(choices) & set(allowed):
            raise Refused(f"every selected candidate takes a forbidden choice of decision {decision}")
    return {"choices": kept, "selected": len(chosen)}


def _fix(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    chosen = _selection(space, fields)
    common = [pair for pair in shared(chosen) if len(settings.allowed[pair[0]]) > 1]
    if not common:
        raise Refused(f"the {counted(len(chosen), 'candidate')} share no choice that is not fixed already")
    for decision, choice in common:
        if choice not in settings.allowed[decision]:
            raise Refused(f"all candidates take choice {choice} of decision {decision}, which is forbidden")
    return {"blocks": [block_id(*pair) for pair in common], "selected": len(chosen)}


def _forbid_common(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    chosen = _selection(space, fields)
    common = [
        (decision, choice)
        for decision, choice in shared(chosen)
        if len(settings.allowed[decision]) > 1 and choice in settings.allowed[decision]
    ]
    if not common:
        raise Refused(
            f"the {counted(len(chosen), 'candidate')} share no choice that could be forbidden: a decision's "
            "last choice stays"
        )
    return {"blocks": [block_id(*pair) for pair in common], "selected": len(chosen)}


def _strategy(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    options = fields.get("options", {})
    if not isinstance(options, Mapping) or not all(
        isinstance(name, str) and (isinstance(value, (str, bool)) or finite(value))
        for name, value in options.items()
    ):
        raise Malformed(f"options: expected numbers and texts by name, got {_shown(options)}", "options")
    return {"name": text_of(fields.get("name"), "name"), "options": dict(options)}


def _budget(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    trials = fields.get("trials")
    if type(trials) is not int or not 0 < trials < 10**9:
        raise Malformed(f"trials: expected a positive number of trials, got {_shown(trials)}", "trials")
    return {"trials": trials}


def _numbers(value: object, name: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and finite(v) for k, v in value.items()):
        raise Malformed(f"{name}: expected numbers by name, got {_shown(value)}", name)
    return {key: float(number) for key, number in value.items()}


def _constraints(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"bounds": _numbers(fields.get("bounds"), "bounds")}


def _weights(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    if "weights" not in fields:
        raise Malformed("weights: expected numbers by objective, or null, got nothing", "weights")
    value = fields["weights"]
    if value is None:
        return {"weights": None}
    found = _numbers(value, "weights")
    for name, weight in found.items():
        if abs(weight) > LARGEST_WEIGHT:
            raise Malformed(
                f"weights: expected at most {LARGEST_WEIGHT:.0e} in size, got {weight:.3g} for {name}",
                "weights",
            )
    return {"weights": found}


def _add(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    if ("text" in fields) == ("decisions" in fields):
        raise Malformed("add: expected either text or decisions", "text")
    if "decisions" in fields:
        return {"decisions": list(decisions_of(space, fields["decisions"]).decisions)}
    return {"decisions": list(parsed(space, fields["text"]).decisions)}


def parsed(space: SearchSpace, text: object) -> Architecture:
    """The architecture of a text that somebody typed; Refused if it is none."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_TEXT:
        raise Malformed(f"text: expected the text of an architecture, got {_shown(text)}", "text")
    try:
        return space.parse(text)
    except UserError as error:
        raise Refused(str(error)) from None


def _withdraw(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"decisions": list(decisions_of(space, fields.get("decisions")).decisions)}


def _train(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    epochs = fields.get("epochs")
    if type(epochs) is not int or not 0 < epochs <= 100_000:
        raise Malformed(f"epochs: expected 1 to 100,000, got {_shown(epochs)}", "epochs")
    return {"epochs": epochs}


def _last(space: SearchSpace, settings: Settings, fields: Mapping[str, Any]) -> dict[str, Any]:
    if fields and (type(fields["of"]) is not int or not 0 <= fields["of"] < 10**9):
        raise Malformed(f"of: expected the number of an action, got {_shown(fields['of'])}", "of")
    return dict(fields)


_READERS: dict[str, Callable[[SearchSpace, Settings, Mapping[str, Any]], dict[str, Any]]] = {
    "forbid": _forbid,
    "force": _force,
    "allow": _allow,
    "restrict": _restrict,
    "fix": _fix,
    "forbid_common": _forbid_common,
    "strategy": _strategy,
    "budget": _budget,
    "constraints": _constraints,
    "weights": _weights,
    "add": _add,
    "withdraw": _withdraw,
    "train": _train,
    "undo": _last,
    "redo": _last,
}


def first_empty(allowed: Allowed) -> int | None:
    """The first decision that no choice is left of."""
    return next((decision for decision, choices in enumerate(allowed) if not choices), None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
