"""Packed sequences: where their elements are, and in which order they hold the samples.

A packed sequence holds its samples sorted by length, and the call of a layer sees neither the lengths nor the
order. The order is therefore noted where the sequence is packed, which the batch sizes, passed on as they are
from layer to layer, lead back to. Where it cannot be known the call is an error.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

from pynas._errors import UserError
from pynas.stats._call_recorder import CallRecorder

Func = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the elements of a packed sequence are in one padded with zeros."""

    sizes: tuple[int, ...] | None
    shape: tuple[int, int]
    positions: Tensor

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> Packing:
        sizes = batch_sizes.tolist()
        batch = sizes[0]
        there = torch.arange(batch) < batch_sizes.unsqueeze(1)
        positions = there.flatten().nonzero().squeeze(1).to(device)
        return cls(None if sizes[-1] == batch else tuple(sizes), (len(sizes), batch), positions)

    def padded(self, data: Tensor) -> Tensor:
        """[N, I] as [T, B, I]."""
        if self.sizes is not None:
            T, B = self.shape
            data = data.new_zeros(T * B, data.shape[1]).index_copy(0, self.positions, data)
        return torch.unflatten(data, 0, self.shape)

    def packed(self, x: Tensor) -> Tensor:
        """[T, B, I] as [N, I]."""
        return x.flatten(0, 1).index_select(0, self.positions)


class _Orders:
    """What one pass has shown of the order of samples in packed sequences.

    Attributes:
        sorts: Sorted numbers, one a sample, and the place in the batch of each; None for places that are in
            order. Of an argsort there are no numbers.
        packed: Batch sizes of packed sequences, with the samples' places; UNKNOWN where these are.
    """

    def __init__(self) -> None:
        self.sorts: list[tuple[TensorWeakRef | None, Tensor | None]] = []
        self.packed: list[tuple[TensorWeakRef, Tensor | str | None]] = []


UNKNOWN = "unknown"
_ORDERS: WeakKeyDictionary[CallRecorder, _Orders] = WeakKeyDictionary()


def _orders(recorder: CallRecorder) -> _Orders:
    return _ORDERS.setdefault(recorder, _Orders())


def sort(recorder: CallRecorder, func: Func, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``torch.sort`` or ``argsort``: perhaps of lengths, by which samples are about to be sorted."""
    if recorder.comes_from(input):
        return NotImplemented
    found = func(input, *args, **kwargs)
    values, places = (None, found) if isinstance(found, Tensor) else found
    if not input.requires_grad and places.shape == (recorder.batch,):
        places = places.detach().cpu()
        in_order = torch.equal(places, torch.arange(recorder.batch))
        ref = None if values is None else TensorWeakRef(values)
        _orders(recorder).sorts.append((ref, None if in_order else places))
    return found


def pack(
    recorder: CallRecorder, func: Func, input: Tensor, lengths: Tensor, batch_first: bool = False
) -> Any:
    """``torch._pack_padded_sequence``: its lengths are what a sort put out, or were in order as they came."""
    orders = _orders(recorder)
    order: Tensor | str | None = None
    if any(places is not None for _, places in orders.sorts):
        mine = [places for ref, places in orders.sorts if ref is not None and ref() is lengths]
        order = mine[-1] if mine else UNKNOWN
    data, batch_sizes = func(input, lengths, batch_first)
    orders.packed.append((TensorWeakRef(batch_sizes), order))
    if order is not None:
        recorder.sorts_samples.append(weakref.ref(batch_sizes))
    return data, batch_sizes


def order_of(recorder: CallRecorder, batch_sizes: Tensor) -> Tensor | None:
    """What brings the samples of a packed sequence, [B, ...], into the order of the batch."""
    found = [order for sizes, order in _orders(recorder).packed if sizes() is batch_sizes]
    order = found[-1] if found else UNKNOWN
    if isinstance(order, str):
        why = "of samples that the model sorted itself" if found else "packed before this forward pass"
        raise UserError(
            f"model: a recurrent layer got a packed sequence {why}, so their order is not known; "
            "let the model's forward call pack_padded_sequence(..., enforce_sorted=False) on samples in the "
            "order of the batch"
        )
    return None if order is None else torch.argsort(order)
