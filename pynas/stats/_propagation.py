"""Where samples go in calls that everybody knows: an exact answer for these, and none for any other.

Following the samples through the operators of plain convolutional and fully connected networks costs next to
nothing. What a network does beyond that is measured (:mod:`pynas.stats._scout`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pynas.stats._functions import name_of
from pynas.stats._layout import Layout, Unknown, Where

UNKNOWN = Unknown("went through an operator that does not say where it leaves them")
Arguments = tuple[Any, ...]
Options = Mapping[str, Any]
# Samples are dimension 0 going in and coming out.
BATCHED = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "group_norm", "instance_norm", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d",
    "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d",
    "_max_pool1d", "_max_pool2d", "_max_pool3d", "boolean_dispatch", "interpolate", "local_response_norm",
    "pixel_shuffle", "channel_shuffle", "lp_pool2d", "run_cell", "dropout2d",
}  # fmt: skip
# One tensor in, one of the same shape out, samples where they were.
SAME = {
    "dropout", "relu", "relu_", "gelu", "silu", "elu", "selu", "celu", "leaky_relu", "hardtanh", "relu6",
    "hardswish", "hardsigmoid", "mish", "softplus", "softsign", "logsigmoid", "tanh", "tanh_", "sigmoid",
    "sigmoid_", "contiguous", "clone", "detach", "to", "float", "double", "type_as", "log_sigmoid", "data",
    "alpha_dropout", "feature_dropout", "glu_",
}  # fmt: skip
# By ranges that may be of the whole batch, and are constants to gradients.
QUANTISES = {"fake_quantize_per_tensor_affine", "fused_moving_avg_obs_fake_quant"}
# Products of matrices in the last two dimensions.
PRODUCTS = {"matmul", "bmm", "scaled_dot_product_attention"}
PIECES = {"chunk", "split", "tensor_split"}


def propagate(
    func: Callable[..., Any],
    args: Arguments,
    kwargs: Options,
    samples: Sequence[tuple[Tensor, Where]],
    y: Tensor,
) -> Where:
    """Where the samples of the output ``y`` are, given those of the inputs that have some."""
    name = name_of(func)
    if not args or not isinstance(args[0], Tensor | tuple | list):
        return UNKNOWN
    if name in QUANTISES:
        samples = [pair for pair in samples if pair[0] is args[0]] or samples
    if len(samples) != 1 or samples[0][0] is not args[0]:
        return _several(name, args, kwargs, samples, y)
    x, where = samples[0]
    if where is None or isinstance(where, Unknown):
        return where
    dim = where.dim
    if name in SAME or name in QUANTISES or is_pointwise(name):
        return _from_right(where, x, y)
    if name in BATCHED:
        single = name.startswith("conv") and x.dim() != int(name[-2]) + 2  # one image without a batch
        return (
            where
            if dim == 0 and x.dim() == y.dim() > 1 and x.shape[0] == y.shape[0] and not single
            else UNKNOWN
        )
    if name in ("linear", "layer_norm", "rms_norm", "softmax", "log_softmax"):
        return _along_features(name, where, x, args, kwargs)
    if name in ("view", "reshape", "flatten", "unflatten"):
        return _reshaped(where, x, y)
    if name in ("mean", "sum", "amax", "amin"):
        return _reduced(where, x, y, args, kwargs)
    if name in ("transpose", "permute", "T", "mT"):
        return _permuted(name, where, x, args, kwargs)
    if name in PIECES:
        split = kwargs.get("dim", args[2] if len(args) > 2 else 0)
        return where if split % x.dim() != dim else UNKNOWN
    if name == "embedding":
        return where if y.dim() == x.dim() + 1 else UNKNOWN
    if name == "getitem":
        return indexed(where, x, args[1])
    if name in ("unsqueeze", "squeeze", "select", "narrow"):
        return _one_dim(name, where, x, args, kwargs)
    if name in PRODUCTS and _matrices(args):
        return _from_right(where, x, y) if dim < x.dim() - 2 else UNKNOWN
    if name in ("expand", "expand_as", "broadcast_to"):
        return _from_right(where, x, y)
    return UNKNOWN


def is_pointwise(name: str) -> bool:
    """Whether each value of the output is a function of those at the same place of the broadcast inputs."""
    if name not in _POINTWISE:
        packet = getattr(torch.ops.aten, name.rstrip("_"), None)
        _POINTWISE[name] = packet is not None and any(
            torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
        )
    return _POINTWISE[name]


_POINTWISE: dict[str, bool] = {}


def _several(
    name: str, args: Arguments, kwargs: Options, samples: Sequence[tuple[Tensor, Where]], y: Tensor
) -> Where:
    """Of additions and the like, whose inputs meet at their last dimensions, and of concatenations."""
    found = set()
    for x, where in samples:
        if not isinstance(where, Layout):
            return UNKNOWN
        found.add((where.dim - x.dim(), where.before, where.after))
    if len(found) != 1:
        return UNKNOWN
    from_right, *order = found.pop()
    where = Layout(from_right + y.dim(), *order)
    size = samples[0][0].shape[where.dim - y.dim()]
    if where.dim < 0 or y.shape[where.dim] != size:
        return UNKNOWN
    if is_pointwise(name) or (name in PRODUCTS and from_right < -2 and _matrices(args)):
        return where
    if name in ("cat", "concat", "concatenate"):
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return where if isinstance(dim, int) and dim % y.dim() != where.dim else UNKNOWN
    return UNKNOWN


def _matrices(args: Arguments) -> bool:
    """Whether no factor is a vector, which would take a dimension away."""
    return all(a.dim() > 1 for a in args if isinstance(a, Tensor))


def _from_right(where: Layout, x: Tensor, y: Tensor) -> Where:
    dim = where.dim - x.dim() + y.dim()
    if dim == where.dim and y.shape[dim] == x.shape[dim]:
        return where
    return replace(where, dim=dim) if dim >= 0 and y.shape[dim] == x.shape[where.dim] else UNKNOWN


def _along_features(name: str, where: Layout, x: Tensor, args: Arguments, kwargs: Options) -> Where:
    if name == "linear":
        trailing = 1
    elif name in ("layer_norm", "rms_norm"):
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        trailing = len(shape)
    else:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        return where if isinstance(dim, int) and dim % x.dim() != where.dim else UNKNOWN
    return where if where.dim < x.dim() - trailing else UNKNOWN


def _reshaped(where: Layout, x: Tensor, y: Tensor) -> Where:
    """The dimension that holds the samples with as much before and after them in memory as there was."""
    batch = x.shape[where.dim] // where.positions
    if x.numel() == 0 or x.numel() != y.numel():
        return UNKNOWN
    before = math.prod(x.shape[: where.dim]) * where.before
    after = math.prod(x.shape[where.dim + 1 :]) * where.after
    found = []
    for dim, size in enumerate(y.shape):
        outer, inner = math.prod(y.shape[:dim]), math.prod(y.shape[dim + 1 :])
        if before % outer == 0 and after % inner == 0 and size == before // outer * batch * (after // inner):
            found.append(Layout(dim, before // outer, after // inner))
    if len(found) > 1:  # dimensions of size 1 beside a batch of one
        found = [layout for layout in found if layout.dim == where.dim == 0]
    return found[0] if found else UNKNOWN


def indexed(where: Layout, x: Tensor, index: Any) -> Where:
    """Of ``x[index]`` with numbers, slices, None and an ellipsis."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(
        i is None or i is Ellipsis or (isinstance(i, int | slice) and not isinstance(i, bool)) for i in parts
    ):
        return UNKNOWN
    used = sum(i is not None and i is not Ellipsis for i in parts)
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    at = parts.index(Ellipsis)
    parts[at : at + 1] = [slice(None)] * (x.dim() - used)
    dim = out = 0
    for i in parts:
        if i is None:
            out += 1
            continue
        if dim == where.dim:
            size = x.shape[dim]
            whole = isinstance(i, slice) and i.indices(size) == (0, size, 1)
            return replace(where, dim=out) if whole else UNKNOWN
        dim += 1
        out += isinstance(i, slice)
    return UNKNOWN


def _one_dim(name: str, where: Layout, x: Tensor, args: Arguments, kwargs: Options) -> Where:
    """Of operators that add, drop or cut one dimension."""
    if kwargs or len(args) < 2 or not isinstance(args[1], int):
        return UNKNOWN
    dim = args[1] % (x.dim() + (name == "unsqueeze"))
    if name == "unsqueeze":
        return replace(where, dim=where.dim + (dim <= where.dim))
    if dim == where.dim:
        return UNKNOWN
    dropped = name == "select" or (name == "squeeze" and x.shape[dim] == 1)
    return replace(where, dim=where.dim - 1) if dropped and dim < where.dim else where


def _reduced(where: Layout, x: Tensor, y: Tensor, args: Arguments, kwargs: Options) -> Where:
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dims is None or dims == () or dims == []:
        return None
    gone = {d % x.dim() for d in ((dims,) if isinstance(dims, int) else dims)}
    if where.dim in gone:
        return None
    return where if y.dim() == x.dim() else replace(where, dim=where.dim - sum(d < where.dim for d in gone))


def _permuted(name: str, where: Layout, x: Tensor, args: Arguments, kwargs: Options) -> Where:
    if kwargs:
        return UNKNOWN
    if name == "permute":
        dims = args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:]
        order = [d % x.dim() for d in dims]
    else:
        order = list(range(x.dim()))
        a, b = args[1:3] if name == "transpose" else (-2, -1)
        order[a], order[b] = order[b], order[a]
        if name == "T":
            order = list(range(x.dim()))[::-1]
    return replace(where, dim=order.index(where.dim))
