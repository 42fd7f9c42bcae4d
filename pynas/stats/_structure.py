"""What the calls of a model's passes depend on besides its numbers."""

from __future__ import annotations

import types
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

VALUES = (int, float, str, bytes, bool, complex, type(None), torch.dtype, torch.device, torch.Size)


class _UnknownError(Exception):
    """An attribute that nothing is known about."""


def structure_of(model: nn.Module, inputs: Any, training: bool | None = None) -> Hashable:
    """A value that two models share only if they are made of the same classes, sizes and settings.

    ``training`` is the mode that all modules are or will be put into; None for those that they are in.
    Of the inputs it holds all but the number of samples. None where a module holds objects of other kinds
    than modules, tensors and plain values, which may decide what its forward does.
    """
    if any(hooks for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)):
        return None
    leaves, spec = pytree.tree_flatten(inputs)
    try:
        modules = tuple(
            (name, *_module(module, training)) for name, module in model.named_modules(remove_duplicate=False)
        )
        shapes = tuple((t.shape[1:], t.dtype) if isinstance(t, Tensor) else _plain(t) for t in leaves)
    except _UnknownError:
        return None
    return modules, shapes, spec


def _module(module: nn.Module, training: bool | None) -> tuple[Any, ...]:
    own = vars(module)
    tensors = tuple(
        (key, None if t is None else (t.shape, t.dtype, t.stride(), t.requires_grad))
        for group in (module._parameters, module._buffers)
        for key, t in group.items()
    )
    names = tuple(
        (key, id(child) if child is None else type(child)) for key, child in module._modules.items()
    )
    rest = tuple((key, _plain(value)) for key, value in own.items() if key not in _OWN)
    return type(module), tensors, names, rest, module.training if training is None else training


_OWN = frozenset(vars(nn.Module()))


def _plain(value: Any) -> Hashable:
    """A plain value, or a function or class by itself, with its type: 1, 1.0 and True are equal."""
    if isinstance(value, VALUES):
        return type(value), value
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, dict):
        return dict, tuple((_plain(k), _plain(v)) for k, v in value.items())
    functions = type | types.BuiltinFunctionType | types.FunctionType
    if isinstance(value, functions) and not getattr(value, "__closure__", None):
        return value  # which the key then keeps alive, so that no other one can take its place
    raise _UnknownError
