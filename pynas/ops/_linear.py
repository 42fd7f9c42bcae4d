"""What the linear gradient operators share: what fits, and the explicit per-group gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pynas.ops._checks import alike, check_fit
from pynas.ops._moments import accumulate_dtype, sum_groups


def check_linear(op: str, grad_output: Tensor, input: Tensor, group_size: int) -> int:
    """Refuses what has no result; returns the number of sample groups."""
    fits = (
        group_size >= 1
        and alike(grad_output, input)
        and grad_output.dim() == input.dim() >= 2
        and grad_output.shape[:-1] == input.shape[:-1]
        and input.shape[0] % group_size == 0
    )
    expected = (
        f"grad_output [B, ..., O] and input [B, ..., I] of a linear layer and of batches of {group_size}"
    )
    check_fit(op, fits, expected, grad_output=grad_output, input=input)
    return input.shape[0] // group_size


def linear_group_gradients(grad_output: Tensor, input: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """The gradients, [G, O, I] and [G, O]: g[b, o, i] = sum_t grad_output[b, t, o] input[b, t, i]."""
    dtype = accumulate_dtype(grad_output.dtype)
    batch, positions = input.shape[0], input.shape[1:-1].numel()
    delta = grad_output.detach().reshape(batch, positions, grad_output.shape[-1]).to(dtype)
    rows = input.detach().reshape(batch, positions, input.shape[-1]).to(dtype)
    weight = torch.einsum("bto,bti->boi", delta, rows)
    return sum_groups(weight, group_size), sum_groups(delta.sum(1), group_size)


def linear_flops(grad_output_shape: torch.Size, input_shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """Operations (multiply and add counted apart) of one weight gradient of the batch."""
    return 2 * grad_output_shape.numel() * input_shape[-1]
