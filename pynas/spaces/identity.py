"""What tells two spaces of one name apart."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pynas._identity import brief, describe
from pynas._naming import attributes_of
from pynas.spaces._base import ARGUMENTS, SearchSpace, is_published
from pynas.spaces._custom import CustomSpace
from pynas.spaces._subset import Subset

DEFINITION, ORDER, SUBSET = "definition", "order", "subset"
"""What stands beside the constructor's options: a user's own code, and which architectures in what order."""


def constructor_options(space: SearchSpace) -> dict[str, Any]:
    """The arguments that the space was made with, where it keeps them under their names."""
    if isinstance(space, Subset):
        return constructor_options(space.parent) | {SUBSET: space.digest}
    names = inspect.signature(type(space)).parameters
    values = {name: getattr(space, name) for name in names if hasattr(space, name)}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}


def identity(space: SearchSpace) -> dict[str, Any]:
    """What decides which network an architecture of this space is: two spaces with equal ones are the same.

    For a space of pynas these are the options of its constructor. A user's own is its code beside them: the
    factory and the choices of a :func:`pynas.spaces.custom` one; of a class its members, the arguments that
    it was made with and its public attributes. A subset has its members, in their order.
    """
    if isinstance(space, Subset):
        return identity(space.parent) | {SUBSET: space.digest, ORDER: space.order_digest}
    definition = _definition(space)
    return constructor_options(space) | ({DEFINITION: definition} if definition else {})


def recorded_options(known: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's options in what :func:`identity` gave."""
    return {name: value for name, value in known.items() if name not in (DEFINITION, ORDER, SUBSET)}


def _definition(space: SearchSpace) -> dict[str, Any]:
    kind = type(space)
    definition: dict[str, Any] = {}
    if isinstance(space, CustomSpace):
        definition = space.definition()
    if not is_published(kind):
        of_class = describe(kind)
        members = {name: part for name, part in of_class.items() if name != "class"}
        told = {*constructor_options(space), *(("factory", "choices") if definition else ())}
        attributes = {
            name: brief(value)
            for name, value in attributes_of(space).items()
            if name not in told and not name.startswith("_")
        }
        definition |= {
            "class": of_class["class"],
            **members,
            "arguments": getattr(space, ARGUMENTS, {}),
            "attributes": attributes,
        }
    # Methods that an instance has of its own, in place of those of its class.
    own = {name: brief(value) for name, value in vars(space).items() if callable(getattr(kind, name, None))}
    return definition | ({"methods": own} if own else {})
