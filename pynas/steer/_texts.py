"""Actions in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace
from pynas.steer._labels import Decision
from pynas.steer._settings import pairs
from pynas.store import Action

_SHOWN = 4

_PLAIN = {
    "pause": "pause the search",
    "resume": "go on with the search",
    "stop": "stop the search",
    "cancel": "cancel the search",
    "train_pause": "pause the training",
    "train_resume": "go on with the training",
    "train_stop": "end the training",
    "exhausted": "nothing new is left to propose",
    "train_failed": "the training failed",
}


def block_text(labels: Sequence[Decision], decision: int, choice: int) -> str:
    """``conv_3x3 on 0-1``."""
    return f"{labels[decision].choices[choice].label} on {labels[decision].label}"


def told(labels: Sequence[Decision], space: SearchSpace, actions: Sequence[Action], action: Action) -> str:
    """One line for people; ``actions`` are those before, which an undo is of."""
    if action.kind in ("undo", "redo"):
        of = action.fields["of"]
        return f"{action.kind}: {told(labels, space, actions, actions[of])}"
    return phrase(labels, space, action.kind, action.fields)


def phrase(labels: Sequence[Decision], space: SearchSpace, kind: str, fields: Mapping[str, Any]) -> str:
    """What an action does, by its kind and its fields as a store has them."""
    if kind in _PLAIN:
        message = fields.get("message")
        return f"{_PLAIN[kind]}: {message}" if message else _PLAIN[kind]
    if kind in ("forbid", "force", "allow", "fix", "forbid_common"):
        verb = {"fix": "force what all share", "forbid_common": "forbid what all share"}.get(kind, kind)
        selected = f" ({counted(fields['selected'], 'candidate')})" if "selected" in fields else ""
        found = [block_text(labels, *pair) for pair in pairs(fields["blocks"])]
        return f"{verb}{selected}: {_listed(found)}" if selected else f"{verb} {_listed(found)}"
    if kind == "restrict":
        return f"only choices of {counted(fields['selected'], 'selected candidate')}"
    if kind in ("add", "withdraw"):
        text = space.format(Architecture(space.name, tuple(fields["decisions"])))
        return f"evaluate {text} next" if kind == "add" else f"do not evaluate {text}"
    if kind == "strategy":
        return _with("strategy " + fields["name"], fields["options"])
    if kind == "budget":
        return f"budget of {counted(fields['trials'], 'trial')}"
    if kind == "constraints":
        bounds = [f"{name} <= {bound:g}" for name, bound in fields["bounds"].items()]
        return f"constraints {', '.join(bounds)}" if bounds else "no constraints"
    if kind == "weights":
        if fields["weights"] is None:
            return "no weights"
        return _with("weights", fields["weights"])
    assert kind == "train"
    return f"train for {counted(fields['epochs'], 'epoch')}"


def _with(text: str, values: Mapping[str, Any]) -> str:
    found = [f"{name}={value}" for name, value in values.items()]
    return f"{text} {', '.join(found)}" if found else text


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
