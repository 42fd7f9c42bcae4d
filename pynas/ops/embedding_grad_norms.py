"""Squared norms and inner products of an embedding's per-sample gradients, from the rows of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._checks import detached
from pynas.ops._embedding import check_embedding, embedding_group_gradients
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype


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
    result: Tensor = torch.ops.pynas.embedding_grad_norms.default(
        *detached("embedding_grad_norms", grad_output=grad_output, indices=indices),
        num_embeddings,
        padding_idx,
        group_size,
    )
    return result


def embedding_grad_norms_reference(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """The same through the dense [G, V, D]."""
    check_embedding("embedding_grad_norms", grad_output, indices, num_embeddings, padding_idx, group_size)
    g, _ = embedding_group_gradients(grad_output, indices, num_embeddings, padding_idx, group_size)
    return g.square().sum((1, 2))


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
    result: Tensor = torch.ops.pynas.embedding_grad_gram.default(
        *detached("embedding_grad_gram", grad_output=grad_output, indices=indices),
        num_embeddings,
        padding_idx,
        group_size,
    )
    return result


def embedding_grad_gram_reference(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    group_size: int = 1,
) -> Tensor:
    """The same through the dense [G, V, D]."""
    check_embedding("embedding_grad_gram", grad_output, indices, num_embeddings, padding_idx, group_size)
    g, _ = embedding_group_gradients(grad_output, indices, num_embeddings, padding_idx, group_size)
    g = g.flatten(1)
    return g @ g.T


def _fake_norms(
    grad_output: Tensor, indices: Tensor, num_embeddings: int, padding_idx: int | None, group_size: int
) -> Tensor:
    name = "embedding_grad_norms"
    count = check_embedding(name, grad_output, indices, num_embeddings, padding_idx, group_size)
    return grad_output.new_empty((count,), dtype=accumulate_dtype(grad_output.dtype))


def _fake_gram(
    grad_output: Tensor, indices: Tensor, num_embeddings: int, padding_idx: int | None, group_size: int
) -> Tensor:
    name = "embedding_grad_gram"
    count = check_embedding(name, grad_output, indices, num_embeddings, padding_idx, group_size)
    return grad_output.new_empty((count, count), dtype=accumulate_dtype(grad_output.dtype))


register_fake("embedding_grad_norms", _fake_norms)
register_fake("embedding_grad_gram", _fake_gram)
