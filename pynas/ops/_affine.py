"""What the operators on norm layers' affine parameters share: checks and the explicit per-group gradients."""

from __future__ import annotations

from torch import Tensor

from pynas.ops._checks import check_device, check_float, check_group_size, check_like
from pynas.ops._moments import accumulate_dtype, sum_groups


def check_affine(
    op: str, grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Validates; returns all detached, the statistics in the accumulation dtype and of one shape."""
    check_float(op, "grad_output", grad_output)
    check_float(op, "input", input)
    check_like(op, "input", input, "grad_output", grad_output)
    for name, tensor in (("grad_output", grad_output), ("input", input)):
        if tensor.dim() != 3:
            raise ValueError(
                f"{op}: {name}: expected [B, C, T] (channels, then the flattened positions), got shape "
                f"{tuple(tensor.shape)}; use {name}.flatten(2), or {name}.transpose(1, 2) for channels last"
            )
    if input.shape != grad_output.shape:
        raise ValueError(
            f"{op}: input: expected the shape {tuple(grad_output.shape)} of grad_output, "
            f"got {tuple(input.shape)}"
        )
    check_group_size(op, grad_output.shape[0], group_size)
    batch, channels, positions = input.shape
    for name, tensor in (("mean", mean), ("rstd", rstd)):
        check_float(op, name, tensor)
        check_device(op, name, tensor, "grad_output", grad_output)
        if (
            tensor.dim() != 3
            or tensor.shape[0] not in (1, batch)
            or tensor.shape[2] not in (1, positions)
            or (channels % tensor.shape[1] if tensor.shape[1] else channels)
        ):
            raise ValueError(
                f"{op}: {name}: expected [{batch} or 1, a divisor of the {channels} channels, "
                f"{positions} or 1], got {tuple(tensor.shape)}"
            )
    if mean.shape[1] != rstd.shape[1] and 1 not in (mean.shape[1], rstd.shape[1]):
        raise ValueError(
            f"{op}: rstd: expected as many channel groups as mean, {mean.shape[1]}, or 1, got {rstd.shape[1]}"
        )
    dtype = accumulate_dtype(input.dtype)
    mean, rstd = mean.detach(), rstd.detach()
    if mean.dtype != dtype or rstd.dtype != dtype:
        mean, rstd = mean.to(dtype), rstd.to(dtype)
    if mean.shape != rstd.shape:
        shape = [b if a == 1 else a for a, b in zip(mean.shape, rstd.shape, strict=True)]
        mean, rstd = mean.expand(shape), rstd.expand(shape)
    return grad_output.detach(), input.detach(), mean, rstd


def affine_group_gradients(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int
) -> tuple[Tensor, Tensor]:
    """The gradients themselves, [G, C] of the scale and [G, C] of the shift."""
    dtype = accumulate_dtype(grad_output.dtype)
    delta = grad_output.to(dtype)
    channels = input.shape[1]
    repeats = channels // mean.shape[1] if mean.shape[1] else 1
    normalised = (input.to(dtype) - mean.repeat_interleave(repeats, 1)) * rstd.repeat_interleave(repeats, 1)
    return sum_groups((delta * normalised).sum(2), group_size), sum_groups(delta.sum(2), group_size)
