"""What the embedding gradient operators share: what fits, and the explicit per-group gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._checks import alike, check_fit
from pynas.ops._moments import accumulate_dtype


def check_embedding(
    op: str,
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    padding_idx: int | None,
    group_size: int,
) -> int:
    """Refuses what has no result; returns the number of sample groups."""
    fits = (
        group_size >= 1
        and alike(grad_output)
        and indices.dtype in (torch.int64, torch.int32)
        and indices.dim() >= 1
        and grad_output.shape[:-1] == indices.shape
        and indices.shape[0] % group_size == 0
        and num_embeddings >= 1
        and (padding_idx is None or -num_embeddings <= padding_idx < num_embeddings)
    )
    expected = (
        f"grad_output [B, ..., D] for indices [B, ...] of batches of {group_size} into {num_embeddings} "
        f"embeddings, padding_idx {padding_idx} among them"
    )
    check_fit(op, fits, expected, grad_output=grad_output, indices=indices)
    return indices.shape[0] // group_size


def embedding_group_gradients(
    grad_output: Tensor, indices: Tensor, num_embeddings: int, padding_idx: int | None, group_size: int
) -> tuple[Tensor, Tensor]:
    """g[b, v] = sum of grad_output[t] over indices[t] = v, [G, V, D], and the rows touched [U]."""
    batch, features = indices.shape[0], grad_output.shape[-1]
    dtype = accumulate_dtype(grad_output.dtype)
    rows = indices.reshape(batch, indices.shape[1:].numel()).long()
    gradients = grad_output.new_zeros((batch // group_size * num_embeddings, features), dtype=dtype)
    group = torch.arange(batch, device=indices.device).div(group_size, rounding_mode="floor")
    target = (group[:, None] * num_embeddings + rows).reshape(-1)
    rows = rows.reshape(-1)
    kept = (
        torch.ones_like(rows, dtype=torch.bool)
        if padding_idx is None
        else rows != padding_idx % num_embeddings
    )
    delta = grad_output.detach().reshape(rows.numel(), features)
    gradients.index_add_(0, target[kept], delta[kept].to(dtype))
    return gradients.reshape(batch // group_size, num_embeddings, features), torch.unique(rows[kept])
