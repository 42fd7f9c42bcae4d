"""PyTorch's functions as a mode of function overrides may call them itself."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any


def without_override_check(func: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function written in Python that does not hand itself over to the active mode."""
    assert isinstance(func, types.FunctionType)
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**func.__globals__, **dict.fromkeys(checks, lambda *_: False)}
    copy = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy
