"""Registers the shapes of operators' results, behind the checks that tracing and meta tensors get past."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import pynas._C


def register_fake(op: str, fake: Callable[..., Any], host: str | None = None) -> None:
    """`fake` gives the shapes of pynas::`op`.

    As soon as one tensor is on the meta device the dispatcher asks for shapes alone, and an operator that
    updates its arguments would do nothing. So tensors on different devices are refused; `host` names the
    argument that may be on the CPU beside the others.
    """
    if not hasattr(torch.ops.pynas, op):
        raise ImportError(
            f"the compiled core {pynas._C.__file__} has no operator {op}: it was built from other sources; "
            "build it again with `make build` or with pip install --no-build-isolation -e ."
        )
    names = [argument.name for argument in getattr(torch.ops.pynas, op).default._schema.arguments]

    @functools.wraps(fake)
    def checked(*arguments: Any, **options: Any) -> Any:
        _check_devices(op, _tensors(names, arguments, options), host)
        try:
            return fake(*arguments, **options)
        except (ArithmeticError, LookupError, AttributeError) as error:
            raise ValueError(
                f"{op}: expected arguments that fit each other, got none that have a result: {error}"
            ) from error

    # A schema names the module that its fake is in: the caller.
    torch.library.register_fake(f"pynas::{op}", checked, _stacklevel=2)


def _tensors(
    names: Sequence[str], arguments: Sequence[Any], options: dict[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    for name, value in [*zip(names, arguments, strict=False), *options.items()]:
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value) if isinstance(item, Tensor))


def _check_devices(op: str, tensors: Iterator[tuple[str, Tensor]], host: str | None) -> None:
    first: tuple[str, torch.device] | None = None
    for name, tensor in tensors:
        if name == host and tensor.device.type == "cpu":
            continue
        if first is None:
            first = name, tensor.device
        other, device = first
        if tensor.device != device:
            raise ValueError(
                f"{op}: {name}: expected the device of {other}, {device}, got {tensor.device}; "
                f"move it with {name}.to({other}.device)"
            )
