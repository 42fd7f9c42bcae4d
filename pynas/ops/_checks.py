"""Argument checks shared by the operators: messages name the argument, what was expected and what came."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Pair: TypeAlias = int | Sequence[int] | str  # strings only to be refused with advice

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_float(op: str, name: str, tensor: Tensor) -> None:
    """`tensor` is a tensor of a floating dtype that the kernels know."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOATS:
        raise TypeError(
            f"{op}: {name}: expected float32, float64, bfloat16 or float16, got {tensor.dtype}; "
            f"convert it, for example with {name}.float()"
        )


def check_like(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """`tensor` has the dtype and device of `other`."""
    if tensor.dtype != other.dtype:
        raise TypeError(
            f"{op}: {name}: expected the dtype of {other_name}, {other.dtype}, got {tensor.dtype}; "
            f"convert it with {name}.to({other_name}.dtype)"
        )
    check_device(op, name, tensor, other_name, other)


def check_device(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """`tensor` is on the device of `other`."""
    if tensor.device != other.device:
        raise ValueError(
            f"{op}: {name}: expected the device of {other_name}, {other.device}, got {tensor.device}; "
            f"move it with {name}.to({other_name}.device)"
        )


def check_tensors(op: str, **tensors: Any) -> None:
    """Refuses what is no tensor; a compiled operator checks all else, but never sees it."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name}: expected a torch.Tensor, got {type(tensor).__name__}")


def detached(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as they go into a compiled operator that is not differentiable."""
    check_tensors(op, **tensors)
    return tuple(tensor.detach() for tensor in tensors.values())


def check_fit(op: str, fits: bool, expected: str, **tensors: Tensor) -> None:
    """Refuses shapes and dtypes of which there is no result, for definitions and for the shapes of results.

    The compiled operators say which argument is wrong; a program that is being compiled has not called them.
    """
    if not fits:
        found = ", ".join(f"{name} {tuple(t.shape)} of {t.dtype}" for name, t in tensors.items())
        raise ValueError(f"{op}: expected {expected}, got {found}")


def alike(*tensors: Tensor) -> bool:
    """Whether all have one dtype, which the kernels know."""
    return tensors[0].dtype in FLOATS and all(tensor.dtype == tensors[0].dtype for tensor in tensors)


def pair(op: str, name: str, value: Pair) -> tuple[int, int]:
    """An int, or a sequence of one or two, as two ints; the compiled operators check their range."""
    if isinstance(value, str):
        raise TypeError(
            f"{op}: {name}: expected an int or two ints, got {value!r}; for 'same' pad the input with "
            f"torch.nn.functional.pad and pass 0, for 'valid' pass 0"
        )
    values = (value,) if isinstance(value, int | torch.SymInt) else _integers(op, name, value)
    if len(values) not in (1, 2):
        raise ValueError(f"{op}: {name}: expected an int or two ints (height, width), got {value!r}")
    return values[0], values[-1]


def _integers(op: str, name: str, values: Any) -> tuple[Any, ...]:
    """A number or a sequence of them that are whole; those of numpy count too, floats do not."""
    try:
        items = tuple(values) if isinstance(values, Iterable) else (values,)
        return tuple(v if isinstance(v, int | torch.SymInt) else operator.index(v) for v in items)
    except TypeError:
        text = f"{op}: {name}: expected an int or two ints (height, width), got {values!r}"
        raise TypeError(text) from None
