"""Moments over samples of the gradients of a norm layer's scale and shift."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pynas.ops._affine import affine_group_gradients, check_affine
from pynas.ops._checks import detached
from pynas.ops._fakes import register_fake
from pynas.ops._moments import MomentSums, accumulate_dtype, count_moments, moment_mask, moments_of, unpack

_NAME = "affine_grad_moments"


def affine_grad_moments(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
) -> MomentSums:
    """Sums over sample groups b of g_b, |g_b|, g_b^2, sign(g_b), (g_b - mean g)^2 of y = gamma xhat + beta.

    g_gamma,b[c] = sum over the group's samples and positions t of grad_output[t, c] xhat[t, c], where
    xhat = (input - mean) rstd;
    g_beta,b[c] = sum_t grad_output[t, c].

    The shape of `mean` and `rstd` says which norm it is: BatchNorm [1, C, 1], LayerNorm [B, 1, T], GroupNorm
    [B, G, 1], InstanceNorm [B, C, 1], RMSNorm a mean of zero [1, 1, 1] and an rstd [B, 1, T]; channel c uses
    group c // (C / G). Under batch statistics g_b is sample b's contribution to the batch gradient: they sum
    to it exactly. Not differentiable: the results carry no autograd graph.

    Args:
        grad_output: [B, C, T] gradient at the layer's output; float32, float64, bfloat16 or float16.
            Any strides: channels first and channels last are both read in place.
        input: [B, C, T] the layer's input, of the same dtype and device.
        mean: [B or 1, G, T or 1] mean that the layer subtracted; G divides C.
        rstd: as `mean`, 1 / sqrt(variance + eps).
        moments: which sums, names out of `pynas.ops.MOMENTS`.
        group_size: number of consecutive samples whose gradients are added to one g; divides B.

    Returns:
        Moments with tensors [C] for the weight (gamma) and for the bias (beta), float32 (float64 for float64
        inputs).

    Raises:
        ValueError: shapes, group_size or moments do not fit.
        TypeError: an argument is not of a floating dtype, or the dtypes differ.
    """
    mask = moment_mask(_NAME, moments)
    tensors = detached(_NAME, grad_output=grad_output, input=input, mean=mean, rstd=rstd)
    weight, bias = torch.ops.pynas.affine_grad_moments.default(*tensors, mask, group_size)
    count = input.shape[0] // group_size
    return MomentSums(unpack(weight, mask, count), unpack(bias, mask, count))


def affine_grad_moments_reference(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    moments: Iterable[str] = ("sum", "abs", "square", "sign"),
    group_size: int = 1,
) -> MomentSums:
    """The same by the definition: every group's gradient explicitly, then the sums."""
    mask = moment_mask(_NAME, moments)
    check_affine(_NAME, grad_output, input, mean, rstd, group_size)
    weight, bias = affine_group_gradients(grad_output, input, mean, rstd, group_size)
    return MomentSums(moments_of(weight, mask), moments_of(bias, mask))


def _fake(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, moments: int, group_size: int
) -> tuple[Tensor, Tensor]:
    check_affine(_NAME, grad_output, input, mean, rstd, group_size)
    shape = (count_moments(moments), input.shape[1])
    dtype = accumulate_dtype(input.dtype)
    return input.new_empty(shape, dtype=dtype), input.new_empty(shape, dtype=dtype)


register_fake("affine_grad_moments", _fake)
