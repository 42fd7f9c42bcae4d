"""Squared norms and inner products of norm layers' per-sample gradients, without the gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._affine import affine_group_gradients, check_affine
from pynas.ops._checks import detached
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype


def affine_grad_norms(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """||g_b||^2 of a norm layer's scale gradient for each sample group b, g_b as in `affine_grad_moments`.

    Works through the channels in blocks. Not differentiable: the result carries no autograd graph.

    Args:
        grad_output: [B, C, T] gradient at the layer's output; float32, float64, bfloat16 or float16.
        input: [B, C, T] the layer's input, of the same dtype and device.
        mean: [B or 1, G, T or 1] mean that the layer subtracted; G divides C.
        rstd: as `mean`, 1 / sqrt(variance + eps).
        group_size: number of consecutive samples whose gradients are added to one g; divides B.
        bias: count the shift's gradient too.

    Returns:
        Squared norms [B / group_size], float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes or group_size do not fit.
        TypeError: an argument is not of a floating dtype, or the dtypes differ.
    """
    tensors = detached("affine_grad_norms", grad_output=grad_output, input=input, mean=mean, rstd=rstd)
    result: Tensor = torch.ops.pynas.affine_grad_norms.default(*tensors, group_size, bias)
    return result


def affine_grad_norms_reference(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """The same from explicit gradients."""
    return _explicit("affine_grad_norms", grad_output, input, mean, rstd, group_size, bias).square().sum(1)


def affine_grad_gram(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """<g_b, g_c> of a norm layer's scale gradients for all pairs of groups; arguments of `affine_grad_norms`.

    Returns:
        Inner products [G, G] with G = B / group_size, float32 (float64 for float64 inputs).
    """
    tensors = detached("affine_grad_gram", grad_output=grad_output, input=input, mean=mean, rstd=rstd)
    result: Tensor = torch.ops.pynas.affine_grad_gram.default(*tensors, group_size, bias)
    return result


def affine_grad_gram_reference(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, *, group_size: int = 1, bias: bool = False
) -> Tensor:
    """The same from explicit gradients."""
    g = _explicit("affine_grad_gram", grad_output, input, mean, rstd, group_size, bias)
    return g @ g.T


def _explicit(
    op: str, grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int, bias: bool
) -> Tensor:
    check_affine(op, grad_output, input, mean, rstd, group_size)
    weight, shift = affine_group_gradients(grad_output, input, mean, rstd, group_size)
    return torch.cat([weight, shift], 1) if bias else weight


def _fake_norms(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int, bias: bool
) -> Tensor:
    count = check_affine("affine_grad_norms", grad_output, input, mean, rstd, group_size)
    return input.new_empty((count,), dtype=accumulate_dtype(input.dtype))


def _fake_gram(
    grad_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, group_size: int, bias: bool
) -> Tensor:
    count = check_affine("affine_grad_gram", grad_output, input, mean, rstd, group_size)
    return input.new_empty((count, count), dtype=accumulate_dtype(input.dtype))


register_fake("affine_grad_norms", _fake_norms)
register_fake("affine_grad_gram", _fake_gram)
