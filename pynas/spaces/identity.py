"""The identity of a space: what tells it from others of the same name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pynas._identity.description import brief, describe
from pynas._identity.naming import attributes_of
from pynas.spaces._arguments import ARGUMENTS, is_published
from pynas.spaces._custom import CustomSpace
from pynas.spaces._part import ALLOWED, ORDER, SUBSET, Part, facts_of, whole
from pynas.spaces.base import SearchSpace

DEFINITION = "definition"
"""Key of user code, which stands beside the constructor's options and the facts of a part."""


def constructor_options(space: SearchSpace) -> dict[str, Any]:
    """The constructor's arguments that the space keeps under their names."""
    if isinstance(space, Part):
        facts = facts_of(space)
        facts.pop(ORDER, None)
        return constructor_options(whole(space)) | facts
    names = inspect.signature(type(space)).parameters
    values = {name: getattr(space, name) for name in names if hasattr(space, name)}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}


def identity(space: SearchSpace) -> dict[str, Any]:
    """Everything that determines which network an architecture is: spaces of equal identity are the same.

    For a space of pynas: the options of its constructor. For a user-defined space also its code: the factory
    and choices of a :func:`pynas.spaces.custom` space; the members of a class, the arguments of its
    constructor and its public attributes. For a subset also its members in order, for a restriction
    its allowed choices.
    """
    if isinstance(space, Part):
        return identity(whole(space)) | facts_of(space)
    definition = _definition(space)
    return constructor_options(space) | ({DEFINITION: definition} if definition else {})


def recorded_options(known: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's options in a result of :func:`identity`."""
    return {name: value for name, value in known.items() if name not in (DEFINITION, ORDER, SUBSET, ALLOWED)}


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
    # Methods that an instance itself has, in place of those of its class.
    own = {name: brief(value) for name, value in vars(space).items() if callable(getattr(kind, name, None))}
    return definition | ({"methods": own} if own else {})
