"""What is known of a function by itself, looked up once: a pass asks thousands of times."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

Func = Callable[..., Any]
PYTHON = (F.__name__, torch.functional.__name__)  # where functionals written in Python live
ATTRIBUTES = {"T", "mT", "H", "mH", "real", "imag", "data", "grad"}  # that are tensors
# Operators of Python, as functions are called.
PLAIN = {
    "truediv": "div", "rtruediv": "div", "rdiv": "div", "itruediv": "div_", "idiv": "div_", "radd": "add",
    "iadd": "add_", "rsub": "sub", "isub": "sub_", "rmul": "mul", "imul": "mul_", "rpow": "pow",
    "ipow": "pow_", "rmatmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "invert": "bitwise_not",
}  # fmt: skip

OWN = {"aten", "prim", "prims", ""}  # namespaces of PyTorch's own operators
# What these give or do depends on where in memory the values of a tensor are.
MEMORY = {
    "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "stride", "storage_offset",
    "data_ptr", "untyped_storage", "storage", "typed_storage", "set_", "resize_", "resize_as_",
}  # fmt: skip


class Traits(NamedTuple):
    """What a function is.

    Attributes:
        name: What an operator is called, whether it is asked for as a function, a method or an attribute.
        reads_attribute: It reads an attribute of a tensor that is no tensor: its shape, its dtype.
        is_python: PyTorch's own Python code runs inside it.
        changes: It writes into its first argument, by its name.
        reads_memory: What it gives or does depends on strides.
        is_foreign: It is an operator that somebody has added to PyTorch's own.
    """

    name: str
    reads_attribute: bool
    is_python: bool
    changes: bool
    reads_memory: bool
    is_foreign: bool


@lru_cache(maxsize=4096)
def traits_of(func: Func) -> Traits:
    """What is known of ``func``."""
    raw = str(getattr(func, "__name__", func))
    if isinstance(func, torch._ops.OpOverload):
        raw = raw.partition(".")[0]
    if raw == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", raw))
    else:
        plain = raw.strip("_") if raw.startswith("__") else raw
        name = PLAIN.get(plain, plain)
    changes = name == "setitem" or (name.endswith("_") and name != "requires_grad_")
    return Traits(
        name, raw == "__get__" and name not in ATTRIBUTES, _is_python(func), changes, name in MEMORY,
        _is_foreign(func),
    )  # fmt: skip


def _is_foreign(func: Func) -> bool:
    if isinstance(func, torch._ops.OpOverload):
        return func.namespace not in OWN
    packet = isinstance(func, torch._ops.OpOverloadPacket)
    return packet and str(getattr(func, "_qualified_op_name", "")).partition("::")[0] not in OWN


def _is_python(func: Func) -> bool:
    if type(func).__name__ != "function" or getattr(func, "__module__", "") not in PYTHON:
        return False
    # Those that only choose between two others call these by their own name again.
    return "<locals>" not in func.__qualname__


def name_of(func: Func) -> str:
    """What an operator is called, whether it is asked for as a function, a method or an attribute."""
    return traits_of(func).name


def is_python(func: Func) -> bool:
    """Whether PyTorch's own Python code runs inside this function."""
    return traits_of(func).is_python


def reads_attribute(func: Func) -> bool:
    """Whether it reads an attribute of a tensor that is no tensor: its shape, its dtype."""
    return traits_of(func).reads_attribute
