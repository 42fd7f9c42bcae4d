"""Copies of one tensor over the batch: calls that lay it out, and where they meet samples in known order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from pynas._errors import UserError
from pynas.stats._calls import Delivery
from pynas.stats._functions import Func, name_of
from pynas.stats._layout import Layout, Where
from pynas.stats._products import RowsProduct
from pynas.stats._propagation import UNKNOWN, is_pointwise

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder

EXPANDS = {"expand", "expand_as", "broadcast_to", "repeat", "tile"}
JOINS = {"cat", "concat", "concatenate"}
# Beside what broadcasts: operators whose inputs have the samples of one output row in the same place.
MEETS = JOINS | {"stack", "matmul", "bmm", "scaled_dot_product_attention"}
GATHERS = {"gather", "take_along_dim"}
CONVOLVES = {f"{kind}{dims}d" for kind in ("conv", "conv_transpose") for dims in (1, 2, 3)}


@dataclass(frozen=True)
class Copies:
    """A call that puts out copies of one tensor.

    Attributes:
        tensor: Of which.
        dim: Where ``stack`` makes a dimension; None in other calls.
        beside: The dimension along which the copies of each value lie side by side (``repeat_interleave``),
            not those of the whole tensor; None in other calls.
    """

    tensor: Tensor
    dim: int | None = None
    beside: int | None = None

    def sizes(self, dims: int) -> tuple[int, ...]:
        """The shape of the tensor with as many dimensions as the copies have, aligned with theirs."""
        own = tuple(self.tensor.shape)
        if self.dim is not None:
            return (*own[: self.dim], 1, *own[self.dim :])
        return (1,) * (dims - len(own)) + own

    def where(self, shape: Sequence[int], batch: int) -> Where:
        """Where samples are among copies of this shape; unknown unless one dimension is a multiple of B.

        The copies of one sample lie side by side, as [B, n] is in memory.
        """
        sizes = self.sizes(len(shape))
        grown = [d for d in range(len(shape)) if shape[d] != sizes[d]]
        if len(grown) != 1 or shape[grown[0]] % batch:
            return UNKNOWN
        (dim,) = grown
        rows = shape[dim] // batch
        if dim != self.beside:
            return Layout(dim, 1, rows)
        return Layout(dim, sizes[dim], rows // sizes[dim]) if rows % sizes[dim] == 0 else UNKNOWN


def copies_of(func: Func, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Copies | None:
    """What a call copies; None where it does something else."""
    name = name_of(func)
    if not args:
        return None
    if name in EXPANDS:
        return Copies(args[0]) if isinstance(args[0], Tensor) else None
    if name == "stack" or name in JOINS:
        parts, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if not isinstance(parts, list | tuple) or not parts or not isinstance(parts[0], Tensor):
            return None
        first = parts[0]
        if any(t is not first for t in parts) or not isinstance(dim, int):
            return None
        return Copies(first, dim % (first.dim() + 1)) if name == "stack" else Copies(first)
    if name == "repeat_interleave":
        repeats = kwargs.get("repeats", args[1] if len(args) > 1 else None)
        dim = kwargs.get("dim", args[2] if len(args) > 2 else None)
        if isinstance(args[0], Tensor) and isinstance(repeats, int) and isinstance(dim, int):
            return Copies(args[0], beside=dim % args[0].dim())
    return None


def lay_out(
    recorder: CallRecorder, func: Func, args: Any, kwargs: Any, copies: Copies, where: Layout, to: Delivery
) -> Tensor:
    """Run a call of copies over the batch: each sample's rows of the output are its own copies."""
    return cast(Tensor, _LaidOut.apply(recorder.anchor, func, args, dict(kwargs), copies, where, to))  # type: ignore[no-untyped-call]


class _LaidOut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        func: Func,
        args: Any,
        kwargs: Any,
        copies: Copies,
        where: Layout,
        to: Delivery,
    ) -> Tensor:
        args, kwargs = pytree.tree_map_only(Tensor, Tensor.detach, (args, kwargs))
        y: Tensor = func(*args, **kwargs)
        ctx.layout, ctx.shape, ctx.to = where, copies.tensor.shape, to
        ctx.sizes, ctx.beside = copies.sizes(y.dim()), copies.beside
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        layout: Layout = ctx.layout
        batch = grad.shape[layout.dim] // max(layout.positions, 1)
        # Each dimension as (copies, size), or (size, copies); that of the samples with B beside the copies.
        shape: list[int] = []
        over: list[int] = []
        sample_dim = 0
        for d, size in enumerate(ctx.sizes):
            count = grad.shape[d] // size if size else 1
            parts = [count]
            if d == layout.dim:
                outer, inner = (size, 1) if d == ctx.beside else (1, size)
                if count % batch or layout.before != outer or layout.after != count // batch * inner:
                    raise UserError(
                        f"model: a tensor of {tuple(ctx.shape)} is laid out over the batch in an unknown "
                        "order"
                    )
                parts = [batch, count // batch]
                sample_dim = len(shape) + (d == ctx.beside)
            first = len(shape) + (d == ctx.beside)
            over.append(first + len(parts) - 1)
            shape += [size, *parts] if d == ctx.beside else [*parts, size]
        rows = grad.reshape(shape).movedim(sample_dim, 0)
        rows = rows.sum([d if d > sample_dim else d + 1 for d in over])
        ctx.to.collector.deliver(ctx.to.use, RowsProduct(rows.reshape(batch, *ctx.shape), 1))
        return None, None, None, None, None, None, None


def meet_in_order(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    samples: Sequence[tuple[Tensor, Where]],
    batch: int,
) -> bool:
    """Whether each sample meets its own copies, given where the samples of all inputs are."""
    places: list[tuple[Tensor, Layout]] = [(t, w) for t, w in samples if isinstance(w, Layout)]
    if len(places) < len(samples):
        return False
    if name in CONVOLVES:
        groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
        return len(args) > 1 and _in_groups(args[0], args[1], places, groups, batch)
    if len({(w.dim - t.dim(), w.before, w.after) for t, w in places}) > 1:
        return False
    if name in GATHERS:
        dim = kwargs.get("dim", args[1] if len(args) > 1 and isinstance(args[1], int) else None)
        dims = {t.dim() for t, _ in places}
        return dim is not None and len(dims) == 1 and all(dim % t.dim() != w.dim for t, w in places)
    return is_pointwise(name) or name in MEETS


def _in_groups(
    x: Tensor, weight: Tensor, places: Sequence[tuple[Tensor, Layout]], groups: int, batch: int
) -> bool:
    """Whether a convolution has the channels of each sample in groups of their own.

    Channels of the image and rows of weight and bias are divided into groups in their order.
    """
    each, rest = divmod(groups, batch)
    if rest:
        return False
    for t, where in places:
        channels = 1 if t is x and x.dim() == weight.dim() else 0
        if where.dim != channels or where.before != 1 or where.after % each:
            return False
    return True
