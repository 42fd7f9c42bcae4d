"""Makes a valid call wrong, or only unusual: one to three changes of its arguments."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pynas.testing.operator_fuzz._memory import elements, is_plain
from pynas.testing.operator_fuzz._samples import OperatorCall

INTEGERS = (0, 1, -1, 2, 3, 5, 64, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, -(2**63), 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)


def mutate(call: OperatorCall, rng: random.Random) -> OperatorCall:
    """`call` with one to three of its arguments changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        call = replace(call, arguments=rng.choice(_CHANGES)(dict(call.arguments), rng))
    return call


def _change_one(arguments: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    name = rng.choice(list(arguments))
    arguments[name] = _changed(arguments[name], rng)
    return arguments


def _exchange(arguments: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Two tensors, at any depth, change places; or one, or a view of it, is put in place of the other."""
    leaves, form = pytree.tree_flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if len(places) < 2:
        return arguments
    one, other = rng.sample(places, 2)
    kind = rng.randrange(3)
    if kind == 0:
        leaves[one], leaves[other] = leaves[other], leaves[one]
    elif kind == 1:
        leaves[one] = leaves[other]
    else:
        leaves[one] = _overlapping(leaves[one], leaves[other])
    changed: dict[str, Any] = pytree.tree_unflatten(leaves, form)
    return changed


def _overlapping(like: Tensor, other: Tensor) -> Tensor:
    """A tensor as `like` within the memory of `other` where that has room: they share a part."""
    if like.dtype != other.dtype or not is_plain(like) or not is_plain(other):
        return other
    flat = other.as_strided((other.untyped_storage().nbytes() // other.element_size(),), (1,), 0)
    spare = elements(flat) - elements(like)
    return other if spare < 0 else flat[spare // 2 :][: elements(like)].view(like.shape)


_CHANGES: tuple[Callable[[dict[str, Any], random.Random], dict[str, Any]], ...] = (
    *(_change_one,) * 8,
    _exchange,
)


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, Tensor):
        return _changed_tensor(value, rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*INTEGERS, value + 1, value - 1, 2 * value))
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if isinstance(value, list | tuple):
        return _changed_list(list(value), rng)
    return value


def _changed_list(values: list[Any], rng: random.Random) -> list[Any]:
    kind = rng.randrange(8)
    if not values:
        return values if kind else [0]
    place = rng.randrange(len(values))
    if kind == 0:
        return []
    if kind == 1:
        return values[:-1]
    if kind == 2:
        return [*values, values[place]]
    if kind == 3:
        return values[:place] + values[place + 1 :]
    if kind == 4:
        return rng.sample(values, len(values))
    if kind == 5 and len(values) < 10:
        return values * rng.choice((2, 8, 70))
    values[place] = _changed(values[place], rng)
    return values


def _changed_tensor(tensor: Tensor, rng: random.Random) -> Any:
    """None stands for a tensor that may be left out; where it may not, the schema refuses it."""
    return rng.choice(_TENSORS)(tensor, rng) if is_plain(tensor) else tensor


def _dtype(tensor: Tensor, rng: random.Random) -> Tensor:
    return tensor.to(rng.choice(DTYPES))


def _layout(tensor: Tensor, rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind == 0:
        return tensor.to("meta")
    if kind == 1:
        return tensor.to_sparse()
    if kind == 2 and tensor.dtype == torch.float32:
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    if kind == 3 and tensor.is_floating_point():
        return torch._neg_view(tensor.clone())
    if kind == 4 and tensor.is_floating_point():
        return tensor.detach().clone().requires_grad_()
    if kind == 5:
        freed = tensor.clone()
        freed.untyped_storage().resize_(rng.choice((0, freed.untyped_storage().nbytes() // 2)))
        return freed
    if kind == 6:
        with torch.inference_mode():
            return tensor.clone()
    return None


def _rank(tensor: Tensor, rng: random.Random) -> Tensor:
    kind = rng.randrange(5)
    if kind == 0 or tensor.dim() == 0:
        return tensor.unsqueeze(rng.randint(0, tensor.dim()))
    if kind == 1 and tensor.shape[0] > 0:
        return tensor[0]
    if kind == 2:
        return tensor.flatten()
    if kind == 3 and elements(tensor) > 0:
        return tensor.flatten()[0]
    return tensor.unsqueeze(-1)


def _sizes(tensor: Tensor, rng: random.Random) -> Tensor:
    if tensor.dim() == 0:
        return tensor.reshape(1)
    axis = rng.randrange(tensor.dim())
    size = tensor.shape[axis]
    kind = rng.randrange(7)
    if kind == 0 and size > 0:
        return tensor.narrow(axis, 0, size - 1)
    if kind == 1 and size > 0:
        return torch.cat((tensor, tensor.narrow(axis, 0, 1)), axis)
    if kind == 2:
        return tensor.narrow(axis, 0, 0)
    if kind == 3 and size > 0:
        return tensor.narrow(axis, 0, 1)
    if kind == 4:
        shape = list(tensor.shape)
        shape[axis] = rng.choice((2**31, 2**40, 2**62))
        shape[rng.randrange(len(shape))] = 0
        return torch.empty_strided(shape, [1] * len(shape), dtype=tensor.dtype)
    if kind == 5 and size > 0:
        shape = list(tensor.shape)
        shape[axis] = rng.choice((2**36, 2**41))
        return tensor.narrow(axis, 0, 1).expand(shape)
    return tensor.new_zeros([rng.choice((0, 1, 2, 3, s)) for s in tensor.shape])


def _strides(tensor: Tensor, rng: random.Random) -> Tensor:
    """The same shape in another order or with gaps in memory; but for expanded ones, the same values."""
    if tensor.dim() == 0 or elements(tensor) == 0:
        return tensor
    kind = rng.randrange(6)
    axis = rng.randrange(tensor.dim())
    if kind == 0:
        return tensor.narrow(axis, 0, 1).expand(tensor.shape)
    if kind == 1:
        order = rng.sample(range(tensor.dim()), tensor.dim())
        back = sorted(range(tensor.dim()), key=order.__getitem__)
        return tensor.permute(order).contiguous().permute(back)
    if kind == 2:
        return torch.stack((tensor, tensor), axis + 1).select(axis + 1, 1)
    if kind == 3:
        return torch.cat((tensor, tensor), axis).narrow(axis, tensor.shape[axis], tensor.shape[axis])
    if kind == 4:
        return tensor.contiguous()
    return (
        tensor.to(memory_format=torch.channels_last)
        if tensor.dim() == 4
        else tensor.t()
        if (tensor.dim() == 2)
        else tensor
    )


def _values(tensor: Tensor, rng: random.Random) -> Tensor:
    if elements(tensor) == 0:
        return tensor
    changed = tensor.clone()
    place = tuple(rng.randrange(size) for size in tensor.shape)
    if tensor.is_floating_point():
        changed[place] = torch.tensor(rng.choice(FLOATS), dtype=torch.float64).to(tensor.dtype)
    elif tensor.dtype == torch.int64:
        changed[place] = rng.choice(INTEGERS)
    return changed


_TENSORS: tuple[Callable[[Tensor, random.Random], Any], ...] = (
    _dtype,
    _layout,
    _rank,
    *(_sizes,) * 2,
    *(_strides,) * 3,
    _values,
)
