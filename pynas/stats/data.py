"""The loss of a pass, and what can be wrong with the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from pynas._errors import UserError
from pynas._plural import counted

LossFn = Callable[[Any, Any], Tensor]


def check_data(inputs: Any, targets: Any) -> int:
    """The number of samples B; UserError for an empty batch, sizes that differ, NaN or infinity."""
    sizes = set()
    for argument, value in (("inputs", inputs), ("targets", targets)):
        for tensor in leaves(value):
            if tensor.dim() == 0:
                raise UserError(f"{argument}: expected a batch of samples, got a scalar tensor")
            sizes.add(tensor.shape[0])
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                every = counted(tensor.numel(), "value")
                raise UserError(f"{argument}: {bad:,} of {every} are NaN or infinite; clean the data")
    if not sizes or 0 in sizes:
        raise UserError("inputs: the batch is empty; pass at least one sample")
    if len(sizes) > 1:
        raise UserError(f"inputs and targets differ in their number of samples: {sorted(sizes)}")
    return sizes.pop()


def plain(value: Any) -> Any:
    """Mappings that PyTorch does not know as containers (what tokenizers return) as dictionaries."""
    known = isinstance(value, dict) or not isinstance(value, Mapping)
    return value if known else {key: plain(part) for key, part in value.items()}


def leaves(value: Any) -> list[Tensor]:
    """The tensors of a tensor, or of tuples, lists and dictionaries of them."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with each tensor changed; a tensor that occurs twice stays one."""
    made: dict[int, Tensor] = {}

    def one(t: Tensor) -> Tensor:
        if id(t) not in made:
            made[id(t)] = change(t)
        return made[id(t)]

    return pytree.tree_map_only(Tensor, one, value)


def ordinary(value: Any) -> Any:
    """The same data as tensors that autograd may save: inference tensors are copied."""
    return map_tensors(lambda t: t.clone() if t.is_inference() else t, value)


def writable(value: Any, detached: Callable[[Tensor], Tensor] = Tensor.detach) -> Any:
    """Copies of the tensors, for a model that may write into what it gets, as a ReLU in place does.

    Always copies: once it has written, the data are gone. ``detached`` gives what each is a copy of: the same
    memory without history.
    """
    return map_tensors(lambda t: detached(t).clone(), value)


def cut(value: Any, start: int, length: int) -> Any:
    """Samples ``start`` to ``start + length`` of inputs or targets."""
    return map_tensors(lambda t: t.narrow(0, start, length), value)


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
    """``model(x)``, ``model(*tuple)`` or ``model(**dict)``; UserError for images that do not fit it."""
    with explaining(inputs):
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


_CHANNELS = re.compile(
    r"expected input\[(?P<shape>[\d, ]+)\] to have (?P<wanted>\d+) channels?, but got (\d+)"
)


@contextmanager
def explaining(inputs: Any) -> Iterator[None]:
    """Surround a forward: raise UserError, in terms of the data, where images are not of the model's kind."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        given = leaves(inputs)
        found = _CHANNELS.search(str(error))
        shape = [int(size) for size in found["shape"].split(",")] if found else []
        if found and any(list(tensor.shape[1:]) == shape[1:] for tensor in given):
            raise UserError(
                f"inputs: the images have {counted(shape[1], 'channel')} and the model reads "
                f"{found['wanted']}: build it with in_channels={shape[1]}, or convert the images"
            ) from error
        if any(tensor.dtype == torch.uint8 and tensor.dim() > 2 for tensor in given):
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                "inputs: images of uint8, which the model does not take "
                f"({reason}): pass floating point, such as (images / 255 - mean) / std; "
                "pynas.data.load_images((images, labels)) gives that"
            ) from error
        raise


def label_range(targets: Tensor) -> tuple[int, int]:
    """The least and the largest label; UserError unless they are int64 and there are some."""
    if targets.dtype != torch.int64 or not targets.numel():
        raise UserError(f"targets: expected int64 labels, got {targets.dtype} {list(targets.shape)}")
    return int(targets.min()), int(targets.max())


def check_labels(labels: tuple[int, int], outputs: Tensor) -> None:
    """Raise UserError unless the model has an output ``[B, C, ...]`` for each label of a range."""
    low, high = labels
    if low < 0 or high >= outputs.shape[1]:
        raise UserError(
            f"targets: labels go from {low} to {high}, but the model has "
            f"{counted(outputs.shape[1], 'output')} (labels 0 to {outputs.shape[1] - 1}); "
            "build it with more classes or fix the labels"
        )


def loss_of(outputs: Any, targets: Any, loss_fn: LossFn | None, batch: int, num_groups: int) -> Tensor:
    """Sum over sample groups of loss_fn(outputs, targets); cross-entropy (mean) when there is no ``loss_fn``.

    A ``loss_fn`` gets copies of the targets: it may mask some in place.

    Raises:
        UserError: Labels out of range, or a loss that is not a scalar.
    """
    if loss_fn is None:
        return _cross_entropy(outputs, targets) * num_groups
    targets = writable(targets)
    if num_groups == 1:
        loss = loss_fn(outputs, targets)
    else:
        size = batch // num_groups
        parts = [
            loss_fn(cut(outputs, s, size), None if targets is None else cut(targets, s, size))
            for s in range(0, batch, size)
        ]
        loss = torch.stack(parts).sum()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UserError("loss_fn: expected a scalar tensor; reduce it over samples (mean or sum)")
    return loss


def _cross_entropy(outputs: Any, targets: Any) -> Tensor:
    if not isinstance(targets, Tensor) or not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise UserError(
            "targets: without loss_fn, expected a tensor of class labels and a model that gives logits [B, C]"
        )
    if targets.dtype == torch.int64:
        check_labels(label_range(targets), outputs)
    elif not targets.is_floating_point():
        raise UserError(f"targets: expected int64 labels or class probabilities, got {targets.dtype}")
    logits = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    return F.cross_entropy(logits, targets)
