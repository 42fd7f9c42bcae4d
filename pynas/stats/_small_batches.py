"""The batches of small passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pynas.stats._layout import CHANGED
from pynas.stats.data import map_tensors


def few(inputs: Any, size: int) -> Any:
    """``size`` times the first sample: sizes that follow the data (the longest sequence) then stay."""
    return map_tensors(lambda x: x.detach()[:1].expand(size, *x.shape[1:]).clone(), inputs)


def one_changed(batch: Any, inputs: Any) -> Any:
    """``batch`` with other data for one sample: other values, or other tokens from the same range."""
    generator = torch.Generator().manual_seed(0)
    ranks = [_rank(t) for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.numel()]
    best = min(ranks, default=0)

    def changed(x: Tensor, whole: Tensor) -> Tensor:
        if not x.numel() or _rank(whole) != best:
            return x
        y = x.clone()
        if x.dtype == torch.bool:
            y[CHANGED] = ~x[CHANGED]
        elif _whole(x):
            low, high = int(whole.min()), int(whole.max())
            y[CHANGED] = low + (x[CHANGED] - low + 1) % (high - low + 1)
        else:  # zeros may be padding, from which a model reads lengths
            factors = torch.rand(x.shape[1:], generator=generator, dtype=torch.float64) + 1.25
            factors = factors.to(x.device, x.dtype)
            y[CHANGED] = x[CHANGED] * factors if x[CHANGED].any() else x[CHANGED] + factors
        return y

    made: dict[int, Tensor] = {}  # a tensor that occurs twice stays one

    def one(x: Any, whole: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) not in made:
            made[id(x)] = changed(x, whole)
        return made[id(x)]

    return pytree.tree_map(one, batch, inputs)


def _rank(x: Tensor) -> int:
    """How surely a tensor is data, 0 most: masks are zeros and ones, and single whole numbers may be lengths.

    A model sorts samples by their lengths, so these are changed only where there is nothing else.
    """
    mask = x.dtype == torch.bool or bool(((x == 0) | (x == 1)).all())
    return 3 * mask + (0 if not _whole(x) else 1 if x.dim() > 1 else 2)


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point() and not x.is_complex()
