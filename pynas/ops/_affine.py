"""What the operators on norm layers' affine parameters share: what fits, and the explicit gradients."""

from __future__ import annotations

from torch import Tensor

from pynas.ops._checks import FLOATS, alike, check_fit
from pynas.ops._moments import accumulate_dtype, sum_groups


def check_affine(
    op: str, grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int
) -> int:
    """Refuses what has no result; returns the number of sample groups."""
    fits = (
        group_size >= 1
        and alike(grad_output, input)
        and input.dim() == mean.dim() == rstd.dim() == 3
        and grad_output.shape == input.shape
        and input.shape[0] % group_size == 0
        and all(
            statistic.dtype in FLOATS
            and statistic.shape[0] in (1, input.shape[0])
            and statistic.shape[2] in (1, input.shape[2])
            and (input.shape[1] % statistic.shape[1] if statistic.shape[1] else input.shape[1]) == 0
            for statistic in (mean, rstd)
        )
        and (mean.shape[1] == rstd.shape[1] or 1 in (mean.shape[1], rstd.shape[1]))
    )
    expected = (
        f"grad_output and input [B, C, T] of batches of {group_size}, mean and rstd [B or 1, a divisor of C, "
        f"T or 1]"
    )
    check_fit(op, fits, expected, grad_output=grad_output, input=input, mean=mean, rstd=rstd)
    return input.shape[0] // group_size


def affine_group_gradients(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int
) -> tuple[Tensor, Tensor]:
    """The gradients themselves, [G, C] of the scale and [G, C] of the shift."""
    dtype = accumulate_dtype(grad_output.dtype)
    delta, x, mean, rstd = (tensor.detach().to(dtype) for tensor in (grad_output, input, mean, rstd))

    def by_channel(statistic: Tensor) -> Tensor:
        groups = statistic.shape[1]
        return statistic.repeat_interleave(x.shape[1] // groups, 1) if groups else statistic

    normalised = (x - by_channel(mean)) * by_channel(rstd)
    return sum_groups((delta * normalised).sum(2), group_size), sum_groups(delta.sum(2), group_size)
