"""What the linear gradient operators share: checks, one layout, the explicit per-group gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pynas.ops._checks import check_batch, check_float, check_group_size, check_like
from pynas.ops._moments import accumulate_dtype, sum_groups


def check_linear(op: str, grad_output: Tensor, input: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Validates [B, ..., O] and [B, ..., I]; returns them detached as [B, T, O] and [B, T, I]."""
    check_float(op, "grad_output", grad_output)
    check_float(op, "input", input)
    check_like(op, "input", input, "grad_output", grad_output)
    if grad_output.dim() < 2:
        raise ValueError(f"{op}: grad_output: expected [B, ..., O], got shape {tuple(grad_output.shape)}")
    if input.dim() < 2:
        raise ValueError(f"{op}: input: expected [B, ..., I], got shape {tuple(input.shape)}")
    check_batch(op, "input", input, "grad_output", grad_output)
    if input.shape[1:-1] != grad_output.shape[1:-1]:
        raise ValueError(
            f"{op}: input: expected the positions {tuple(grad_output.shape[1:-1])} of grad_output between "
            f"the batch and the feature axis, got {tuple(input.shape[1:-1])}"
        )
    check_group_size(op, grad_output.shape[0], group_size)
    positions = grad_output.shape[1:-1].numel()
    batch, out_features, in_features = grad_output.shape[0], grad_output.shape[-1], input.shape[-1]
    return (
        grad_output.detach().reshape(batch, positions, out_features),
        input.detach().reshape(batch, positions, in_features),
    )


def linear_group_gradients(delta: Tensor, rows: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """The gradients themselves, [G, O, I] and [G, O]: g[b, o, i] = sum_t delta[b, t, o] rows[b, t, i]."""
    dtype = accumulate_dtype(delta.dtype)
    weight = torch.einsum("bto,bti->boi", delta.to(dtype), rows.to(dtype))
    return sum_groups(weight, group_size), sum_groups(delta.to(dtype).sum(1), group_size)


def linear_flops(grad_output_shape: torch.Size, input_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """Operations (multiply and add counted apart) of one weight gradient of the batch."""
    return 2 * grad_output_shape[0] * grad_output_shape[1] * grad_output_shape[2] * input_shape[2]
