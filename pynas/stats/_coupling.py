"""Calls that bring samples together or into another order, whatever small passes made of them.

A measurement sees what happened to the samples that it had. Where rows are taken by an index, sorted or added
up, the call itself says more: whether each row of this batch still is its own sample's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pynas.stats._functions import name_of
from pynas.stats._layout import COUPLED, DATA, MIXED, ORDER, PAIRS, Layout, Unknown, Where
from pynas.stats._propagation import BATCHED, QUANTISES, is_pointwise

if TYPE_CHECKING:
    from pynas.stats._following import Following

JOINS = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}
PRODUCTS = {"matmul", "mm", "bmm"}
# Along the dimension of samples each row gets something of others, or rows come in another order; with the
# argument that names dimensions.
MIXES = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "cumsum_", "cumprod_"), 1),
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "_softmax", "_log_softmax"), 1),
    **dict.fromkeys(("renorm", "diff"), 2),
}
MOVES = {**dict.fromkeys(("sort", "argsort", "flip", "msort", "flipud", "fliplr"), 1), "topk": 2, "roll": 2}
FIXED = {"msort": 0, "flipud": 0, "fliplr": 1}
LAST = {"sort", "argsort", "topk", "diff"}  # whose dimension is the last one where none is named
INDEXES = {"index_select": 1, "gather": 1, "take_along_dim": 2, "take_along_axis": 2}
# These write rows, or parts of them, where an index says: by their numbers, and value by value.
WRITES_ROWS = {"index_copy", "index_add", "index_reduce"}
WRITES_VALUES = {"scatter", "scatter_add", "scatter_reduce"}
# From their third dimension on, these take values together, or by their places.
WINDOWS = {*BATCHED, "grid_sample", "grid_sampler", "unfold", "fold"} - {"batch_norm"}
FLAT = {"take", "put", "put_"}  # whose index counts all values of a tensor
# Whatever these put out may be in order although what they get is not.
PUTS_BACK = {
    *INDEXES, "flip", "flipud", "roll", "sort", "setitem", "index_copy", "index_copy_", "index_add",
    "index_add_", "index_put", "index_put_", "scatter", "scatter_", "scatter_add", "scatter_add_",
}  # fmt: skip
SHUFFLED = Unknown(ORDER)
MIXTURE = Unknown(COUPLED)
TAINTS = (MIXTURE, SHUFFLED)  # what is known of samples whatever a measurement of few says
MEASURED = (Unknown(DATA), Unknown(MIXED))


def coupled(
    following: Following,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensors: Sequence[Tensor],
    samples: Sequence[tuple[Tensor, Where]],
    where: Layout,
) -> Where:
    """Where samples are in an output where they seem to be ``where``: there if each row is one's own."""
    name = name_of(func)
    if following.sorts_samples and any(known() is t for known in following.sorts_samples for t in tensors):
        return SHUFFLED  # packed sequences, sorted by length
    shuffled = together = False
    for t, place in samples:
        if place == Unknown(PAIRS):  # a row and a column for each sample: what comes of it is of several
            return MIXTURE
        if place is None:
            # What has no dimension of samples, but something of them in it, has something of several.
            if t.is_floating_point() and name not in QUANTISES:
                return MIXTURE
        elif isinstance(place, Unknown):
            if place == MIXTURE:
                return MIXTURE
            shuffled = shuffled or place == SHUFFLED
            together = together or place in MEASURED
    if shuffled and name not in PUTS_BACK and not (name == "getitem" and _by_rows(args[1])):
        return SHUFFLED
    if together and (name in JOINS or is_pointwise(name)):
        return MIXTURE
    return _by_call(following, name, args, kwargs, {id(t): place for t, place in samples}, where)


def _by_call(
    following: Following,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    places: Mapping[int, Where],
    where: Layout,
) -> Where:
    if not args or not isinstance(args[0], Tensor):
        return where
    x, place = args[0], places.get(id(args[0]))
    if name in PRODUCTS and len(args) == 2 and isinstance(args[1], Tensor):
        other = places.get(id(args[1]))
        over = isinstance(place, Layout) and place.dim == x.dim() - 1
        over = over or (isinstance(other, Layout) and other.dim == max(args[1].dim() - 2, 0))
        return SHUFFLED if over else where
    if name in ("embedding", "embedding_bag") and len(args) > 1 and id(args[1]) in places:
        return SHUFFLED  # samples as the table
    if not isinstance(place, Layout):
        return where
    if name in WINDOWS and place.dim > 1:
        return MIXTURE
    if name in FLAT:
        return SHUFFLED
    if _writes_others(following, name, args, kwargs, places, place):
        return SHUFFLED
    if name in MIXES or name in MOVES:
        if place.dim not in _dims(name, args, kwargs, x.dim()):
            return where
        return MIXTURE if name in MIXES else SHUFFLED
    takes = name == "getitem" and _takes_others(following, args[1], x, place, where)
    if takes or (name in INDEXES and _selects_others(following, name, args, kwargs, x, place, where)):
        return SHUFFLED
    return where


def kept(places: Sequence[tuple[Tensor, Where]], where: Unknown) -> Unknown:
    """``where``, a measured one, or what holds for all that comes of the samples that went in."""
    found = [place for _, place in places]
    return next((known for known in TAINTS if known in found), where)


def _writes_others(
    following: Following,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    places: Mapping[int, Where],
    place: Layout,
) -> bool:
    """Whether samples are written into rows of others, in a tensor with samples at ``place``."""
    plain = name.rstrip("_")
    x = args[0]
    if plain in ("setitem", "index_put"):
        index = args[1] if len(args) > 1 else kwargs.get("indices")
        value = args[2] if len(args) > 2 else kwargs.get("values")
        if not isinstance(value, Tensor) or id(value) not in places or not _by_rows(index):
            return False
        given = places[id(value)]
        index = tuple(index) if isinstance(index, list) and plain == "index_put" else index
        return not isinstance(given, Layout) or _takes_others(following, index, x, place, given)
    if plain not in WRITES_ROWS | WRITES_VALUES:
        return False
    options = dict(zip(("dim", "index", "source"), args[1:4], strict=False)) | dict(kwargs)
    dim, index, value = options.get("dim"), options.get("index"), options.get("source", options.get("src"))
    if not isinstance(value, Tensor) or id(value) not in places:
        return False  # constants, which are no sample's
    given = places[id(value)]
    if not isinstance(dim, int) or not isinstance(index, Tensor) or not isinstance(given, Layout):
        return True
    if dim % x.dim() != place.dim:
        return False
    rows = index.detach().long().cpu()
    size = rows.shape[place.dim] if plain in WRITES_VALUES else len(rows)
    own = torch.arange(size) // given.after % following.batch
    if plain in WRITES_VALUES:
        own = own.view(-1, *(1,) * (rows.dim() - place.dim - 1))
    return given.dim != place.dim or not bool((rows // place.after % following.batch == own).all())


def _by_rows(index: Any) -> bool:
    """Whether an index takes rows by tensors or lists of their numbers."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(i, Tensor | list) or type(i).__module__ == "numpy" for i in parts)


def _dims(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], dims: int) -> set[int]:
    if name in FIXED:
        return {FIXED[name]}
    at = MIXES[name] if name in MIXES else MOVES[name]
    given = kwargs.get("dims", kwargs.get("dim", args[at] if len(args) > at else None))
    if name == "flip" and len(args) > at + 1:
        given = args[at:]
    if isinstance(given, bool) or given is None:
        return {dims - 1} if name in LAST else set(range(dims))
    return {d % dims for d in ((given,) if isinstance(given, int) else given)}


def _takes_others(following: Following, index: Any, x: Tensor, place: Layout, where: Layout) -> bool:
    """Of ``x[index]``: whether a tensor or a list takes rows other than those of each sample in order."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not _by_rows(index):
        return False
    used = sum(
        0 if i is None or i is Ellipsis else i.dim() if isinstance(i, Tensor) and i.dtype == torch.bool else 1
        for i in parts
    )
    dim = 0
    for i in parts:
        if i is None:
            continue
        if i is Ellipsis:
            dim += x.dim() - used
            continue
        if isinstance(i, Tensor) and i.dtype == torch.bool:
            dim += i.dim()  # what a mask leaves out shows in the size
            continue
        if dim == place.dim:
            return not isinstance(i, slice | int) and not _in_order(following, i, x, place, where)
        dim += 1
    return False


def _in_order(following: Following, index: Any, x: Tensor, place: Layout, where: Layout) -> bool:
    rows = torch.as_tensor(index).detach().cpu()
    if rows.dtype == torch.bool:
        return True
    size = x.shape[place.dim]
    sample = rows.long().remainder(size) // place.after % following.batch
    if place.before > 1 and rows.dim() != 1:
        return False
    expected = torch.arange(following.batch)
    if rows.dim() == 1:
        expected = torch.arange(len(rows)) // where.after % following.batch
        return torch.equal(sample, expected)
    # Several indices broadcast: one of their dimensions counts the samples.
    return any(
        rows.shape[d] == following.batch
        and torch.equal(sample, expected.view(-1, *(1,) * (rows.dim() - d - 1)).expand_as(sample))
        for d in range(rows.dim())
    )


def _selects_others(
    following: Following,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    x: Tensor,
    place: Layout,
    where: Layout,
) -> bool:
    dim = kwargs.get("dim", args[INDEXES[name]] if len(args) > INDEXES[name] else None)
    index = kwargs.get("index", kwargs.get("indices", args[3 - INDEXES[name]] if len(args) > 2 else None))
    if name == "take_along_dim" and dim is None:
        return True
    if index is None and len(args) > 1:
        index = next((a for a in args[1:] if isinstance(a, Tensor)), None)
    if not isinstance(dim, int) or dim % x.dim() != place.dim:
        return False
    if not isinstance(index, Tensor):
        return True
    if name == "index_select":
        return not _in_order(following, index, x, place, where)
    rows = torch.arange(index.shape[place.dim], device=index.device)
    rows = rows.view(-1, *(1,) * (index.dim() - place.dim - 1))
    return not bool((index == rows).all())
