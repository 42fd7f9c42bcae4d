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


def check_group_size(op: str, batch: int, group_size: int) -> None:
    """Groups of `group_size` consecutive samples divide the batch."""
    if group_size < 1:
        raise ValueError(f"{op}: group_size: expected at least 1 sample to a group, got {group_size}")
    if batch % group_size != 0:
        raise ValueError(
            f"{op}: group_size: expected a divisor of the batch size {batch}, got {group_size}; "
            f"drop the last {batch % group_size} samples or choose another group_size"
        )


def check_batch(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Both have the same number of samples."""
    if tensor.shape[0] != other.shape[0]:
        raise ValueError(
            f"{op}: {name}: expected {other.shape[0]} samples (axis 0) as in {other_name}, "
            f"got {tensor.shape[0]}"
        )


def pair(op: str, name: str, value: Pair, minimum: int) -> tuple[int, int]:
    """An int, or a sequence of one or two, as two ints, each at least `minimum`."""
    if isinstance(value, str):
        raise TypeError(
            f"{op}: {name}: expected an int or two ints, got {value!r}; for 'same' pad the input with "
            f"torch.nn.functional.pad and pass 0, for 'valid' pass 0"
        )
    values = (value,) if isinstance(value, int | torch.SymInt) else _integers(op, name, value)
    if len(values) not in (1, 2):
        raise ValueError(f"{op}: {name}: expected an int or two ints (height, width), got {value!r}")
    first, second = values[0], values[-1]
    if first < minimum or second < minimum:
        raise ValueError(f"{op}: {name}: expected values >= {minimum}, got {value!r}")
    return first, second


def _integers(op: str, name: str, values: Any) -> tuple[Any, ...]:
    """A number or a sequence of them that are whole; those of numpy count too, floats do not."""
    try:
        items = tuple(values) if isinstance(values, Iterable) else (values,)
        return tuple(v if isinstance(v, int | torch.SymInt) else operator.index(v) for v in items)
    except TypeError:
        text = f"{op}: {name}: expected an int or two ints (height, width), got {values!r}"
        raise TypeError(text) from None
