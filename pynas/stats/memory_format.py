"""The memory format that passes run fastest in: a network is put into it and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pynas._errors import UserError

T = TypeVar("T")
# Kinds of networks, as the classes of their modules, that run in their own format alone.
_OWN_FORMAT: dict[frozenset[type], None] = {}
REMEMBERED = 256


def wants_channels_last(model: nn.Module) -> bool:
    """Whether ``model`` runs faster in channels_last.

    2-D convolutions of more than four channels do, on CPU and GPU. In this format
    :class:`pynas.ops.StridedConvolutions` has to intercept convolutions, which is impossible for those that
    TorchScript compiled: such a model keeps its format, and so does one that was seen to need it.
    """
    modules = list(model.modules())
    if any(isinstance(m, torch.jit.ScriptModule) for m in modules):
        return False
    if not any(isinstance(m, nn.Conv2d) and m.in_channels > 4 for m in modules):
        return False
    return frozenset(map(type, modules)) not in _OWN_FORMAT


def needs_its_own_format(model: nn.Module) -> None:
    """Remember that networks of this kind do not run in channels_last: their forward calls ``view``, say."""
    if len(_OWN_FORMAT) >= REMEMBERED:
        _OWN_FORMAT.pop(next(iter(_OWN_FORMAT)))
    _OWN_FORMAT[frozenset(map(type, model.modules()))] = None


def put(
    model: nn.Module, memory_format: torch.memory_format, changed: list[tuple[Tensor, Tensor]] | None = None
) -> None:
    """Put the weights of 2-D convolutions into a format; ``changed`` gets each one with its former data."""
    for module in model.modules():
        weight = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
        if weight is not None and not weight.is_contiguous(memory_format=memory_format):
            if changed is not None:
                changed.append((weight, weight.data))
            weight.data = weight.data.contiguous(memory_format=memory_format)


@contextmanager
def formatted(model: nn.Module, memory_format: torch.memory_format) -> Iterator[None]:
    """The weights of 2-D convolutions in this format, and as they were afterwards."""
    changed: list[tuple[Tensor, Tensor]] = []
    try:
        put(model, memory_format, changed)
        yield
    finally:
        for weight, data in changed:
            weight.data = data


def images_in(inputs: Any, memory_format: torch.memory_format) -> Any:
    """Four-dimensional inputs in this format; others as they are."""
    return pytree.tree_map_only(
        Tensor, lambda x: x.contiguous(memory_format=memory_format) if x.dim() == 4 else x, inputs
    )


def in_the_faster_format(model: nn.Module, inputs: Any, run: Callable[[Any], T]) -> tuple[T, bool]:
    """``run(inputs)`` in channels_last where that is faster and works; whether it was so.

    A network may need the format that its owner chose (``view`` of what a convolution puts out): what fails
    runs again in that one. Errors that say what to do are not tried again.
    """
    if not wants_channels_last(model):
        return run(inputs), False
    try:
        with formatted(model, torch.channels_last):
            return run(images_in(inputs, torch.channels_last)), True
    except (UserError, MemoryError):
        raise
    except Exception:
        found = run(inputs)  # raises what has nothing to do with formats
        needs_its_own_format(model)
        return found, False


def like_parameters(values: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """Values by name with their tensors in the formats of the parameters that they belong to."""
    return {
        name: _like(value, parameters[name]) if name in parameters else value
        for name, value in values.items()
    }


def _like(value: Any, parameter: Tensor) -> Any:
    if isinstance(value, Tensor):
        if parameter.dim() != 4 or value.shape != parameter.shape or value.stride() == parameter.stride():
            return value
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _like(getattr(value, f.name), parameter) for f in fields(value)})
    return value
