"""Moments over samples of an embedding's gradient, for the rows that the batch touches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pynas.ops._checks import detached
from pynas.ops._embedding import check_embedding, embedding_group_gradients
from pynas.ops._fakes import register_fake
from pynas.ops._moments import MomentSums, accumulate_dtype, count_moments, moment_mask, moments_of, unpack

_NAME = "embedding_grad_moments"


def embedding_grad_moments(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
) -> tuple[Tensor, MomentSums]:
    """Sums over sample groups b of g_b, |g_b|, g_b^2, sign(g_b), (g_b - mean g)^2 of an embedding's rows.

    g_b[v] = sum of grad_output[t] over the group's positions t with indices[t] = v; zero where there is none.

    Only touched rows are computed and returned; in all others every sum is zero. Groups without a row count
    as zeros in its sums. Not differentiable: the results carry no autograd graph.

    Args:
        grad_output: [B, ..., D] gradient at the layer's output; float32, float64, bfloat16 or float16.
        indices: [B, ...] int64 or int32 rows looked up, 0 <= index < num_embeddings.
        num_embeddings: number of rows V of the layer.
        padding_idx: row whose gradient is zero by definition (`torch.nn.Embedding`); negative counts from V.
        moments: which sums, names out of `pynas.ops.MOMENTS`.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.

    Returns:
        The touched rows [U], int64, ascending, and their moments with tensors [U, D] in `weight`, float32
        (float64 for float64 inputs).

    Raises:
        ValueError: shapes, indices, padding_idx, group_size or moments do not fit.
        TypeError: wrong dtypes.
    """
    mask = moment_mask(_NAME, moments)
    touched, values = torch.ops.pynas.embedding_grad_moments.default(
        *detached(_NAME, grad_output=grad_output, indices=indices),
        num_embeddings,
        padding_idx,
        mask,
        group_size,
    )
    return touched, MomentSums(unpack(values, mask, indices.shape[0] // group_size))


def embedding_grad_moments_reference(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
) -> tuple[Tensor, MomentSums]:
    """The same by the definition, through the dense [G, V, D]."""
    mask = moment_mask(_NAME, moments)
    check_embedding(_NAME, grad_output, indices, num_embeddings, padding_idx, group_size)
    gradients, touched = embedding_group_gradients(
        grad_output, indices, num_embeddings, padding_idx, group_size
    )
    return touched, MomentSums(moments_of(gradients[:, touched], mask))


def _fake(
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    padding_idx: int | None,
    moments: int,
    group_size: int,
) -> tuple[Tensor, Tensor]:
    check_embedding(_NAME, grad_output, indices, num_embeddings, padding_idx, group_size)
    touched = torch.library.get_ctx().new_dynamic_size()
    shape = (count_moments(moments), touched, grad_output.shape[-1])
    values = grad_output.new_empty(shape, dtype=accumulate_dtype(grad_output.dtype))
    return indices.new_empty((touched,), dtype=torch.int64), values


register_fake("embedding_grad_moments", _fake)
