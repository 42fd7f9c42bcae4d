"""Parameters whose samples' gradients cannot be told apart, all of a pass in one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pynas._errors import UserError

SHOWN = 8
PLURAL = {"is": "are", "reaches": "reach"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One use of a parameter that no rule covers; ``reason`` begins with its verb, in the singular."""

    parameter: str
    reason: str

    @property
    def layer(self) -> str:
        """The module that owns the parameter."""
        return self.parameter.rpartition(".")[0]


class UnsupportedLayerError(UserError):
    """Parameters reach the loss in ways that no rule covers.

    Attributes:
        problems: Each of them.
    """

    def __init__(self, model: nn.Module, problems: Sequence[Problem], remedy: str = "") -> None:
        self.model, self.problems = model, tuple(problems)
        of_layers: dict[tuple[str, str], list[str]] = {}
        for problem in self.problems:
            names = of_layers.setdefault((problem.layer, problem.reason), [])
            if problem.parameter not in names:
                names.append(problem.parameter)
        lines = [
            f"{_parameters(names)} of layer {layer!r} ({_kind(model, layer)}) {_agreeing(reason, names)}"
            for (layer, reason), names in list(of_layers.items())[:SHOWN]
        ]
        more = len(of_layers) - len(lines)
        text = "; ".join(lines) + (f"; and {more} more like these" if more > 0 else "")
        super().__init__(f"{text}; {remedy}" if remedy else text)

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        return UserError, (str(self),)

    @property
    def layers(self) -> tuple[str, ...]:
        """The modules that own the parameters, each once."""
        return tuple(dict.fromkeys(problem.layer for problem in self.problems))

    def advised(self, remedy: str) -> UnsupportedLayerError:
        """The same with what to do about it."""
        return UnsupportedLayerError(self.model, self.problems, remedy)


def _parameters(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"parameter{'s' if len(names) > 1 else ''} {shown}{more}"


def _agreeing(reason: str, names: Sequence[str]) -> str:
    """A reason, which begins with a verb of one parameter, of as many as there are."""
    verb, _, rest = reason.partition(" ")
    return f"{PLURAL.get(verb, verb)} {rest}" if len(names) > 1 else reason


def _kind(model: nn.Module, layer: str) -> str:
    try:
        return type(model.get_submodule(layer)).__name__
    except AttributeError:
        return "?"
