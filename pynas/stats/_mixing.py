"""Where tensors computed from parameters meet samples in a call that has no rule of its own.

Three ways, the first that fits: a call that broadcasts (additions, scalings, ``where``) gets the tensor with
a row for each sample, whose gradient is what each sample contributes; one that lays it out over the batch
(``expand``, ``repeat``) likewise; any other operator runs as one node whose backward takes the
vector-Jacobian product of each sample (:mod:`pynas.stats._grouped`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from pynas.stats._calls import Delivery
from pynas.stats._copies import copies_of, lay_out
from pynas.stats._functions import Func, is_python, name_of, reads_attribute, traits_of
from pynas.stats._layout import Layout, Unknown, Where
from pynas.stats._products import RowsProduct
from pynas.stats._propagation import UNKNOWN, indexed, is_pointwise, propagate

if TYPE_CHECKING:
    from pynas.stats._call_recorder import CallRecorder

# Products, with how many of their arguments are inputs: what multiplies these is a weight. 0: any of them.
PRODUCTS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "convolution", "conv_tbc"), 1),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    **dict.fromkeys(("bilinear", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), 2),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "dot", "vdot"), 0),
    **dict.fromkeys(("inner", "einsum", "tensordot", "chain_matmul", "outer", "ger"), 0),
    **dict.fromkeys(("linalg_multi_dot", "linalg_matmul", "linalg_vecdot", "sparse_mm", "_sparse_mm"), 0),
    **dict.fromkeys(("smm", "spmm", "hspmm", "sspaddmm", "sparse_sampled_addmm"), 0),
}
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}  # whose weights are their last list of tensors
QUESTIONS = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "element_size", "type",
    "get_device", "is_floating_point", "is_complex", "is_signed", "data_ptr", "storage_offset",
    "untyped_storage", "item", "tolist", "len", "bool", "repr", "format", "hash", "requires_grad_",
    "is_inference", "is_shared", "is_pinned", "has_names", "retain_grad", "register_hook", "is_set_to",
    "dense_dim", "sparse_dim", "backward", "storage", "typed_storage", "set", "delete", "is_same_size",
    "can_cast", "result_type", "is_tensor", "is_nonzero", "dir",
}  # fmt: skip
# These read the size or the dtype of their second argument.
AS_ANOTHER = {"to", "type_as", "expand_as", "view_as", "reshape_as"}
REARRANGES = {
    "t", "T", "mT", "H", "transpose", "permute", "view", "view_as", "reshape", "unsqueeze", "squeeze",
    "narrow", "select", "chunk", "split", "unbind", "contiguous", "flatten", "unflatten", "clone", "swapaxes",
    "movedim", "split_with_sizes", "tensor_split", "unsafe_chunk", "numpy_T", "adjoint", "ravel",
}  # fmt: skip


def asks_about(func: Func) -> bool:
    """Whether it only reads of a tensor what its size, its dtype or its place are."""
    if reads_attribute(func):
        return True
    name = name_of(func)
    return name in QUESTIONS or name.startswith("new_") or name.endswith("_like")


def weights_of(func: Func, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """What multiplies the input in a product; of any other operator nothing.

    What an operator that somebody has added takes is taken for a weight.
    """
    name = name_of(func).rstrip("_")
    if name in RECURRENT:
        lists = [found for a in args if isinstance(a, list | tuple) and (found := tensors_of(a, {}))]
        found = lists[-1] if lists else []
    elif name in PRODUCTS:
        found = tensors_of(args[PRODUCTS[name] :], kwargs)
    elif traits_of(func).is_foreign:
        found = tensors_of(args, kwargs)
    else:
        return []
    return [t for t in found if t.dim() > 1]


def rearranges(func: Func, args: tuple[Any, ...]) -> bool:
    """Whether an operator only moves values about, each at most once."""
    name = name_of(func)
    if name == "getitem":  # with a tensor or a list it may take the same value several times
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return all(i is None or i is Ellipsis or isinstance(i, int | slice) for i in index)
    return name in REARRANGES


class NeedsScoutError(Exception):
    """Where the samples are has to be measured before this pass can go on."""


TENSORS = frozenset({Tensor, torch.nn.Parameter})
PLAIN = frozenset({int, float, bool, str, type(None), slice, torch.dtype, torch.Size})


def tensors_of(args: Iterable[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among arguments, and in their lists and tuples."""
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind in TENSORS:
            found.append(value)
        elif kind in PLAIN:  # most: whether it is some tensor takes Python ten times as long
            continue
        elif isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(tensors_of(value, {}))
        elif isinstance(value, dict):
            found.extend(tensors_of((), value))
    return found


def outputs_of(func: Func, args: tuple[Any, ...], result: Any) -> list[Tensor]:
    """The tensors that a call has made or written."""
    if result is None and name_of(func) == "setitem":
        return [args[0]]
    return tensors_of((result,), {})


def operands(func: Func, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among the arguments whose values a call uses."""
    found = tensors_of(args, kwargs)
    return found[:1] if name_of(func) in AS_ANOTHER else found


def mix(
    recorder: CallRecorder,
    func: Func,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    used: Sequence[Tensor],
) -> Any:
    """Run a call of ``used``, tensors that come from parameters, and whatever else."""
    name = name_of(func)
    if not recorder.tracks or not torch.is_grad_enabled() or asks_about(func):
        return func(*args, **kwargs)
    if is_python(func) and func not in recorder.rules:
        return recorder.descend(func, args, kwargs)
    tensors = operands(func, args, kwargs)
    if recorder.measured is None:
        if len(tensors) == len(used) and rearranges(func, args):
            return func(*args, **kwargs)  # whatever its sizes are, no sample has come near it
        result = func(*args, **kwargs)
        if any(t.requires_grad for t in tensors_of((result,), {})):
            raise NeedsScoutError
        return result
    places = recorder.next_places(func)
    assert places is not None
    meets = any(recorder.is_sample(t) for t in tensors)
    shape = None
    if places and isinstance(places[0], Unknown):
        known, shape = _followed(recorder, func, args, kwargs, tensors, meets)
        places = (known, *places[1:])
    if not meets and not any(p is not None for p in places):
        return func(*args, **kwargs)
    weights = {id(t) for t in weights_of(func, args, kwargs)}
    asked = {
        id(t): Delivery(recorder.collector, use)
        for t in used
        if (use := recorder.collector.use(name, t, None, id(t) in weights)) is not None
    }
    unasked = {id(t) for t in used if id(t) not in asked}
    if unasked:
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda t: t.detach() if id(t) in unasked else t, (args, dict(kwargs))
        )
    if not asked:
        return func(*args, **kwargs)
    recorder.once_only()
    return _mixed(recorder, func, name, args, kwargs, asked, places, meets, shape)


def _followed(
    recorder: CallRecorder,
    func: Func,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensors: Sequence[Tensor],
    meets: bool,
) -> tuple[Where, Sequence[int] | None]:
    """Where samples will be in an output in which that could not be measured, and its shape."""
    name = name_of(func)
    if meets and is_pointwise(name):
        shape = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
        samples = [(t, recorder.where(t)) for t in tensors if recorder.is_sample(t)]
        return propagate(func, args, kwargs, samples, torch.empty(shape, device="meta")), shape
    copies = None if meets else copies_of(func, args, kwargs)
    if copies is not None:
        y = func(*pytree.tree_map_only(Tensor, Tensor.detach, args), **kwargs)
        return copies.where(y.shape, recorder.batch), y.shape
    return UNKNOWN, None


def _mixed(
    recorder: CallRecorder,
    func: Func,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    asked: Mapping[int, Delivery],
    places: Sequence[Where],
    meets: bool,
    shape: Sequence[int] | None,
) -> Any:
    from pynas.stats._grouped import run_operator

    where = places[0] if places else None
    if name == "setitem":
        return _written(recorder, func, args, asked)
    used = [t for t in tensors_of(args, kwargs) if id(t) in asked]
    if (
        meets
        and isinstance(where, Layout)
        and is_pointwise(name)
        and not any(t is args[0] for t in used if name[-1:] == "_")
    ):
        shape = recorder.next_shape(where) if shape is None else shape
        rows = {
            id(t): broadcast(recorder, t, where, shape, asked[id(t)])
            for t in used
            if _broadcasts(t, where, len(shape))
        }
        if len(rows) == len({id(t) for t in used}):
            args, kwargs = pytree.tree_map_only(Tensor, lambda t: rows.get(id(t), t), (args, dict(kwargs)))
            return func(*args, **kwargs)
    copies = None if meets else copies_of(func, args, kwargs)
    if copies is not None and isinstance(where, Layout) and id(copies.tensor) in asked:
        return lay_out(recorder, func, args, kwargs, copies, where, asked[id(copies.tensor)])
    return run_operator(recorder, func, name, args, kwargs, asked, places)


def _written(recorder: CallRecorder, func: Func, args: tuple[Any, ...], asked: Mapping[int, Delivery]) -> Any:
    """``target[index] = value`` with a value that comes from parameters."""
    target, index, value = args
    where = recorder.where(target)
    place = indexed(where, target, index) if isinstance(where, Layout) else None
    if id(target) not in asked and isinstance(place, Layout):
        shape = target.detach()[index].shape
        if _broadcasts(value, place, len(shape)):
            return func(target, index, broadcast(recorder, value, place, shape, asked[id(value)]))
    recorder.problem([value], "is written into a tensor where the samples cannot be followed")
    return func(target, index, value.detach())


def _broadcasts(t: Tensor, where: Layout, dims: int) -> bool:
    """Whether ``t`` is the same for every sample when it meets an output of ``dims`` dimensions."""
    from_right = dims - where.dim
    return t.dim() < from_right or t.shape[t.dim() - from_right] == 1


def broadcast(recorder: CallRecorder, t: Tensor, where: Layout, shape: Sequence[int], to: Delivery) -> Tensor:
    """``t`` with a row for each row of the dimension of an output that holds the samples."""
    return cast(Tensor, _Broadcast.apply(recorder.anchor, t.detach(), where, tuple(shape), to))  # type: ignore[no-untyped-call]


class _Broadcast(torch.autograd.Function):
    """t with its dimension of samples expanded, without memory; the gradient has a row for each of them."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, t: Tensor, where: Layout, shape: tuple[int, ...], to: Delivery
    ) -> Tensor:
        from_right = len(shape) - where.dim
        wide = t.reshape((1,) * (from_right - t.dim()) + t.shape)
        dim = wide.dim() - from_right
        ctx.layout, ctx.shape, ctx.to = Layout(dim, where.before, where.after), t.shape, to
        # Not a view for autograd, so that the model may go on as with a tensor of its own.
        return wide.expand(*wide.shape[:dim], shape[where.dim], *wide.shape[dim + 1 :]).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        rows = ctx.layout.first(grad)
        if ctx.layout.positions > 1:
            rows = rows.sum((ctx.layout.dim + 1, ctx.layout.dim + 2))
        ctx.to.collector.deliver(ctx.to.use, RowsProduct(rows.reshape(rows.shape[0], *ctx.shape), 1))
        return None, None, None, None, None
