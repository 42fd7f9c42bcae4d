"""What tells two spaces of one name apart."""

from __future__ import annotations

import inspect
from typing import Any

from pynas.spaces._base import SearchSpace


def constructor_options(space: SearchSpace) -> dict[str, Any]:
    """The arguments that the space was made with, where it keeps them under their names."""
    names = inspect.signature(type(space)).parameters
    values = {name: getattr(space, name) for name in names if hasattr(space, name)}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
