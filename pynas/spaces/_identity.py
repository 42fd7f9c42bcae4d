"""What tells two spaces of one name apart."""

from __future__ import annotations

import inspect
from typing import Any

from pynas.spaces._base import SearchSpace
from pynas.spaces._subset import Subset


def constructor_options(space: SearchSpace) -> dict[str, Any]:
    """The arguments that the space was made with, where it keeps them under their names."""
    if isinstance(space, Subset):
        return constructor_options(space.parent) | {"subset": space.digest}
    names = inspect.signature(type(space)).parameters
    values = {name: getattr(space, name) for name in names if hasattr(space, name)}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
