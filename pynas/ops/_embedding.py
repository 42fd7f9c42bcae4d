"""What the embedding gradient operators share: checks and the explicit per-group gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._checks import check_device, check_float, check_group_size
from pynas.ops._moments import accumulate_dtype

NO_PADDING = -1


def check_embedding(
    op: str,
    grad_output: Tensor,
    indices: Tensor,
    num_embeddings: int,
    padding_idx: int | None,
    group_size: int,
) -> tuple[Tensor, Tensor, int]:
    """Validates; returns gradients [B, T, D], indices [B, T] and the padding index or NO_PADDING."""
    check_float(op, "grad_output", grad_output)
    if indices.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{op}: indices: expected int64 or int32, got {indices.dtype}")
    check_device(op, "indices", indices, "grad_output", grad_output)
    if indices.dim() < 1 or grad_output.dim() < 2 or grad_output.shape[:-1] != indices.shape:
        raise ValueError(
            f"{op}: grad_output: expected the shape of indices and a feature axis, "
            f"{tuple(indices.shape)} and D, got {tuple(grad_output.shape)}"
        )
    if num_embeddings < 1:
        raise ValueError(f"{op}: num_embeddings: expected at least 1, got {num_embeddings}")
    padding = NO_PADDING
    if padding_idx is not None:
        if not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"{op}: padding_idx: expected None or a row of {num_embeddings} embeddings, got {padding_idx}"
            )
        padding = padding_idx % num_embeddings
    batch = indices.shape[0]
    check_group_size(op, batch, group_size)
    # Elsewhere the look-up of the forward pass has checked them; reading them here would stall the device.
    if indices.device.type == "cpu" and not torch.compiler.is_compiling() and indices.numel():
        low, high = (int(v) for v in torch.aminmax(indices))
        if low < 0 or high >= num_embeddings:
            raise ValueError(
                f"{op}: indices: expected rows 0 to {num_embeddings - 1}, got {low if low < 0 else high}; "
                f"num_embeddings must be the layer's"
            )
    positions = indices.shape[1:].numel()
    return (
        grad_output.detach().reshape(batch, positions, grad_output.shape[-1]),
        indices.reshape(batch, positions).to(torch.int64),
        padding,
    )


def add_rows(target: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``target[index[n]] += rows[n]`` in place, in one order: the sums have the same bits each time."""
    if target.is_cuda:  # there index_add_ is a race of atomic additions; this sorts first
        return target.index_put_((index,), rows, accumulate=True)
    return target.index_add_(0, index, rows)


def embedding_group_gradients(
    grad_output: Tensor, indices: Tensor, num_embeddings: int, padding: int, group_size: int
) -> Tensor:
    """The gradients themselves, [G, V, D]: g[b, v] = sum of grad_output[t] where indices[t] = v."""
    batch, _, features = grad_output.shape
    dtype = accumulate_dtype(grad_output.dtype)
    gradients = grad_output.new_zeros((batch // group_size * num_embeddings, features), dtype=dtype)
    group = torch.arange(batch, device=indices.device).div(group_size, rounding_mode="floor")
    target = (group[:, None] * num_embeddings + indices).reshape(-1)
    kept = (indices != padding).reshape(-1)
    add_rows(gradients, target[kept], grad_output.reshape(-1, features)[kept].to(dtype))
    return gradients.reshape(batch // group_size, num_embeddings, features)
