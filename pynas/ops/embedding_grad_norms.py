"""Squared norms and inner products of an embedding's per-sample gradients, from the rows of the batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pynas.ops._checks import check_float, check_group_size
from pynas.ops._embedding import add_rows, check_embedding, embedding_group_gradients
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype

_BLOCK = 1 << 22  # numbers in one dense block of the inner products: bounds memory whatever G, U and D are


def embedding_grad_norms(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """||g_b||^2 of an embedding's gradient for each sample group b, g_b as in `embedding_grad_moments`.

    Holds one row for each distinct (group, row) of the batch, so at most the size of grad_output, never
    [B, V, D]. Not differentiable: the result carries no autograd graph.

    Args:
        grad_output: [B, ..., D] gradient at the layer's output; float32, float64, bfloat16 or float16.
        indices: [B, ...] int64 or int32 rows looked up.
        num_embeddings: number of rows V of the layer.
        padding_idx: row whose gradient is zero by definition; negative counts from V.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.

    Returns:
        Squared norms [B / group_size], float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, indices, padding_idx or group_size do not fit.
        TypeError: wrong dtypes.
    """
    delta, rows, padding = check_embedding(
        "embedding_grad_norms", grad_output, indices, num_embeddings, padding_idx, group_size
    )
    count = delta.shape[0] // group_size
    _, group, gradients = _pairs(delta, rows, num_embeddings, padding, group_size)
    total = torch.zeros(count, dtype=gradients.dtype, device=gradients.device)
    return add_rows(total, group, gradients.square().sum(1))


def embedding_grad_norms_reference(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """The same through the dense [G, V, D]."""
    delta, rows, padding = check_embedding(
        "embedding_grad_norms", grad_output, indices, num_embeddings, padding_idx, group_size
    )
    return embedding_group_gradients(delta, rows, num_embeddings, padding, group_size).square().sum((1, 2))


def embedding_grad_gram(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """<g_b, g_c> of an embedding's gradients for all pairs of groups; arguments of `embedding_grad_norms`.

    Returns:
        Inner products [G, G] with G = B / group_size, float32 (float64 for float64 inputs).
    """
    delta, rows, padding = check_embedding(
        "embedding_grad_gram", grad_output, indices, num_embeddings, padding_idx, group_size
    )
    result: Tensor = torch.ops.pynas.embedding_grad_gram.default(
        delta, rows, num_embeddings, padding, group_size
    )
    return result


def _gram(delta: Tensor, indices: Tensor, num_embeddings: int, padding: int, group_size: int) -> Tensor:
    _check_gram(delta, indices, num_embeddings, group_size)
    if not indices.numel():
        return _fake(delta, indices, num_embeddings, padding, group_size).zero_()
    count, features = delta.shape[0] // group_size, delta.shape[2]
    row, group, gradients = _pairs(delta, indices, num_embeddings, padding, group_size)
    total = torch.zeros((count, count), dtype=gradients.dtype, device=gradients.device)
    # Touched rows in blocks: a dense [G, rows, D] of one block at a time, pairs of a block lie together.
    touched, sizes = torch.unique_consecutive(row, return_counts=True)
    width = max(1, _BLOCK // max(1, count * features))
    ends = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).tolist()
    position = torch.repeat_interleave(torch.arange(len(touched), device=row.device), sizes)
    for begin in range(0, len(touched), width):
        end = min(begin + width, len(touched))
        pairs = slice(ends[begin], ends[end])
        dense = gradients.new_zeros((count, end - begin, features))
        dense[group[pairs], position[pairs] - begin] = gradients[pairs]
        flat = dense.flatten(1)
        total.addmm_(flat, flat.T)
    return total


def _check_gram(delta: Tensor, indices: Tensor, num_embeddings: int, group_size: int) -> None:
    """The operator's own arguments, which it can be called with past :func:`embedding_grad_gram`."""
    op = "embedding_grad_gram"
    check_float(op, "delta", delta)
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.device != delta.device:
        raise TypeError(f"{op}: indices: expected an int64 tensor on {delta.device}")
    if delta.layout != torch.strided or indices.layout != torch.strided:
        raise ValueError(f"{op}: expected dense tensors, got {delta.layout} and {indices.layout}")
    if indices.dim() != 2 or delta.dim() != 3 or delta.shape[:2] != indices.shape:
        raise ValueError(
            f"{op}: delta: expected [B, T, D] for indices [B, T], {tuple(indices.shape)}, "
            f"got {tuple(delta.shape)}"
        )
    check_group_size(op, delta.shape[0], group_size)
    if math.prod(size or 1 for size in delta.shape) > 1 << 40:
        raise ValueError(f"{op}: delta: expected at most 2^40 elements, got the shape {tuple(delta.shape)}")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < num_embeddings:
        raise ValueError(f"{op}: indices: expected rows 0 to {num_embeddings - 1}")


def _fake(delta: Tensor, indices: Tensor, num_embeddings: int, padding: int, group_size: int) -> Tensor:
    count = delta.shape[0] // group_size
    return delta.new_empty((count, count), dtype=accumulate_dtype(delta.dtype))


# An operator of its own, because its loop depends on the data and a compiler could not trace it.
torch.library.custom_op("pynas::embedding_grad_gram", _gram, mutates_args=())
register_fake("embedding_grad_gram", _fake)


def embedding_grad_gram_reference(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """The same through the dense [G, V, D]."""
    delta, rows, padding = check_embedding(
        "embedding_grad_gram", grad_output, indices, num_embeddings, padding_idx, group_size
    )
    g = embedding_group_gradients(delta, rows, num_embeddings, padding, group_size).flatten(1)
    return g @ g.T


def _pairs(
    delta: Tensor, indices: Tensor, num_embeddings: int, padding: int, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct (row, group) pairs in ascending order, [N] and [N], and their gradients [N, D]."""
    batch, _, features = delta.shape
    count = batch // group_size
    if not 1 <= num_embeddings <= (1 << 62) // max(1, count):
        raise ValueError(
            f"embedding_grad: num_embeddings: expected 1 to 2^62 rows in all {count} groups together, "
            f"got {num_embeddings}"
        )
    group = torch.arange(batch, device=indices.device).div(group_size, rounding_mode="floor")
    key = (indices * count + group[:, None]).reshape(-1)
    kept = (indices != padding).reshape(-1)
    pairs, inverse = torch.unique(key[kept], return_inverse=True)
    gradients = delta.new_zeros((len(pairs), features), dtype=accumulate_dtype(delta.dtype))
    add_rows(gradients, inverse, delta.reshape(-1, features)[kept].to(gradients.dtype))
    return pairs.div(max(1, count), rounding_mode="floor"), pairs % max(1, count), gradients
