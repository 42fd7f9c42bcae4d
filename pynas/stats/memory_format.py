"""The memory format that passes run fastest in: a network is put into it and back again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from operator import is_
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pynas._errors import UserError
from pynas.stats._functions import traits_of
from pynas.stats.data import map_tensors

T = TypeVar("T")
_NOW = threading.local()  # whether a network of this thread is in another format than its owner's
# Kinds of networks, as the classes of their modules, that run in their own format alone.
_OWN_FORMAT: dict[frozenset[type], None] = {}
REMEMBERED = 256


class FormatError(RuntimeError):
    """A forward asks how a tensor lies in memory while it lies otherwise than its author knows it."""


def check_format(func: Callable[..., Any]) -> None:
    """FormatError for a call that reads or chooses strides, in the time of another memory format.

    ``as_strided`` would take other values than the network is to have, without a word.
    """
    if traits_of(func).reads_memory and getattr(_NOW, "converted", False):
        raise FormatError(f"{traits_of(func).name} depends on the memory format")


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
    return _kind(model) not in _OWN_FORMAT


def in_the_faster_format(model: nn.Module, inputs: Any, run: Callable[[Any], T]) -> tuple[T, bool]:
    """``run(inputs)`` in channels_last where that is faster and works; whether it ran in channels_last.

    A network may need the format that its owner chose (``view`` of what a convolution puts out, or
    ``as_strided``): what fails runs again in that one, and its kind is remembered. Errors that say what to do
    are not tried again.
    """
    if not wants_channels_last(model):
        return run(inputs), False
    with _in_channels_last(model) as changed:
        images = map_tensors(_image, inputs)
        if not changed and all(map(is_, pytree.tree_leaves(images), pytree.tree_leaves(inputs))):
            return run(inputs), True  # a kernel's gradient may still be in another than its weight
        try:
            return run(images), True
        except MemoryError:
            raise
        except UserError as error:
            if not isinstance(error.__cause__, RuntimeError):  # which it puts in words
                raise
        except Exception:
            pass  # below, where it is no longer the cause of another one
    found = run(inputs)  # raises what has nothing to do with formats
    if len(_OWN_FORMAT) >= REMEMBERED:
        _OWN_FORMAT.pop(next(iter(_OWN_FORMAT)))
    _OWN_FORMAT[_kind(model)] = None
    return found, False


def _kind(model: nn.Module) -> frozenset[type]:
    return frozenset(map(type, model.modules()))


def _image(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@contextmanager
def _in_channels_last(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The weights of 2-D convolutions in this format, and as they were afterwards; those that it changed."""
    changed: list[tuple[Tensor, Tensor]] = []
    before = getattr(_NOW, "converted", False)
    _NOW.converted = True
    try:
        for module in model.modules():
            weight = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
            if weight is not None and not weight.is_contiguous(memory_format=torch.channels_last):
                changed.append((weight, weight.data))
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield changed
    finally:
        _NOW.converted = before
        for tensor, data in changed:
            tensor.data = data


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
