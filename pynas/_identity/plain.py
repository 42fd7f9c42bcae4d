"""Configurations as JSON values, which is what a store keeps of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from pynas._errors import UserError
from pynas._identity.description import brief
from pynas._identity.naming import is_tensor


def plain(value: object, what: str, *, of_any: bool = False) -> Any:
    """``value`` as JSON: numbers of NumPy, paths, enumerations, tuples and sets have one meaning there.

    Args:
        value: From somebody's configuration.
        what: What the error calls it.
        of_any: Describe other objects instead of refusing them.

    Raises:
        UserError: Something in it has no meaning in JSON; the message says where it stands.
    """
    try:
        return _plain(value, what, of_any)
    except RecursionError:
        raise UserError(f"{what}: expected JSON values, got some that hold themselves") from None


def _plain(value: object, what: str, of_any: bool) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, what, of_any)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return (
            _plain(value.item(), what, of_any) if value.dtype.kind in "biufU" else _other(value, what, of_any)
        )
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if of_any:
            return str(float(value))
        raise UserError(f"{what}: expected JSON values, got {value}, which JSON does not have; leave it out")
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        result = {_key(key, what): _plain(inner, f"{what}.{key}", of_any) for key, inner in value.items()}
        if len(result) < len(value):
            raise UserError(f"{what}: two of its names are the same text in JSON; rename one")
        return result
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{what}[{i}]", of_any) for i, inner in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(inner, what, of_any) for inner in value), key=json.dumps)
    return _other(value, what, of_any)


def _other(value: object, what: str, of_any: bool) -> Any:
    if of_any or isinstance(value, np.ndarray) or is_tensor(value):
        return brief(value)
    raise UserError(
        f"{what}: expected JSON values (numbers, text, lists, mappings), got {type(value).__name__}; give "
        "what identifies it, such as its settings or a digest"
    )


def _key(key: object, what: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        return str(next(iter(json.loads(json.dumps({key: 0})))))  # as JSON writes it
    raise UserError(f"{what}: expected names that are text, got {type(key).__name__}")
