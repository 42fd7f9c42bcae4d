"""One call, made and judged: it may succeed with the right numbers or raise what a user can understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pynas.testing.operator_fuzz._memory import GuardedMemory, elements, is_plain
from pynas.testing.operator_fuzz._samples import OperatorCall

ALLOWED = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, MemoryError)
"""What a call may raise; those of torch, such as OutOfMemoryError, are RuntimeErrors."""

# What the standard library and torch say of states that should have been checked before.
_INTERNAL = ("INTERNAL ASSERT", "vector::", "basic_string", "unknown exception", "bad optional access")
_TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_ORDERED = frozenset({"activation_codes"})
"""Operators whose result depends on the order of elements in memory, by definition."""


class Judge:
    """Makes calls, their tensors in guarded memory, and says what is wrong with what comes of them."""

    def __init__(self) -> None:
        self._memory = GuardedMemory()

    def fault(self, call: OperatorCall, at_end: bool, must_succeed: bool) -> str | None:
        """Why this call is a fault of the operator, or None. Python's; others end the process."""
        self._memory.reset()
        arguments = self._guarded(call.arguments, at_end)
        before = _values(arguments)
        dense = _dense(call.arguments, keep_order=call.op in _ORDERED)
        function = getattr(torch.ops.pynas, call.op).default
        try:
            result = function(**arguments)
        except ALLOWED as error:
            text = str(error)
            if must_succeed:
                return f"a valid call raised {type(error).__name__}: {text}"
            if any(word in text for word in _INTERNAL):
                return f"an internal {type(error).__name__}: {text.splitlines()[0]}"
            return None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        updated = _updated(function)
        for name, value in before.items():
            if name not in updated and not _same(value, _bytes(arguments[name])):
                return f"wrote to its input {name}"
        if not all(is_plain(t) for name in updated for t in _tensors(arguments[name])):
            return None  # not copied, so the second call would go on from what the first one left
        return _compare(function, result, arguments, dense, updated)

    def _guarded(self, arguments: dict[str, Any], at_end: bool) -> dict[str, Any]:
        """Copies; tensors that share memory go on sharing it."""
        made: dict[int, Tensor] = {}
        storages = [t.untyped_storage()._cdata for t in _plain(arguments)]
        shared = {place for place in storages if storages.count(place) > 1}

        def guard(tensor: Tensor) -> Tensor:
            if not is_plain(tensor) or tensor.untyped_storage()._cdata in shared:
                return tensor
            if id(tensor) not in made:
                made[id(tensor)] = self._memory.place(tensor, at_end)
            return made[id(tensor)]

        guarded: dict[str, Any] = pytree.tree_map_only(Tensor, guard, arguments)
        return guarded


def _compare(
    function: Callable[..., Any],
    result: Any,
    arguments: dict[str, Any],
    dense: dict[str, Any],
    updated: frozenset[str],
) -> str | None:
    try:
        expected = function(**dense)
    except ALLOWED:
        try:  # some read channels_last alone
            dense = pytree.tree_map_only(Tensor, _channels_last, dense)
            expected = function(**dense)
        except ALLOWED:
            return None
    found = [*_tensors(result), *(t for name in sorted(updated) for t in _tensors(arguments[name]))]
    wanted = [*_tensors(expected), *(t for name in sorted(updated) for t in _tensors(dense[name]))]
    for i, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if got.shape != want.shape or got.dtype != want.dtype or got.device != want.device:
            return f"result {i} is {got.dtype} {tuple(got.shape)}, of dense copies {tuple(want.shape)}"
        if not got.is_meta and not _close(got, want):
            error = (got.double() - want.double()).abs().nan_to_num().max().item()
            return f"result {i} differs by {error:.2e} from that of dense copies"
    return None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _plain(tree: Any) -> list[Tensor]:
    return [tensor for tensor in _tensors(tree) if is_plain(tensor) and elements(tensor) > 0]


def _updated(function: Any) -> frozenset[str]:
    """Names of the arguments that are written in place."""
    return frozenset(
        argument.name
        for argument in function._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _bytes(value: Any) -> list[Tensor]:
    flat = [tensor.new_empty(elements(tensor)).copy_(tensor.reshape(-1)) for tensor in _plain(value)]
    return [tensor.view(torch.uint8) for tensor in flat]


def _values(arguments: dict[str, Any]) -> dict[str, list[Tensor]]:
    return {name: _bytes(value) for name, value in arguments.items()}


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _dense(arguments: dict[str, Any], keep_order: bool) -> dict[str, Any]:
    def dense(tensor: Tensor) -> Tensor:
        if not is_plain(tensor):
            return tensor
        # A clone keeps the order of strides even of a tensor with gaps, whose units count by their indices.
        kept = keep_order and torch.ops.aten.is_non_overlapping_and_dense.default(tensor)
        return tensor.clone() if kept else tensor.clone(memory_format=torch.contiguous_format)

    copied: dict[str, Any] = pytree.tree_map_only(Tensor, dense, arguments)
    return copied


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _close(got: Tensor, want: Tensor) -> bool:
    if got.dtype not in _TOLERANCE:
        return torch.equal(got, want)
    if elements(got) == 0:
        return True
    got, want, tolerance = got.double(), want.double(), _TOLERANCE[got.dtype]
    finite = torch.isfinite(want) & torch.isfinite(got)
    if not bool(finite.all()):
        # Infinities and what comes of them depend on the order of sums; that both have them does not.
        return not bool(torch.isfinite(want).all()) and not bool(torch.isfinite(got).all())
    scale = max(1.0, float(want.abs().max()))
    return float((got - want).abs().max()) <= tolerance * scale
