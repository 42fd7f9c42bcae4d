"""Training-mode batch normalisation on the CPU, for passes that need no gradient of its affine parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from pynas.ops._fakes import register_fake
from pynas.ops.tensors import detached


def supports_batch_norm(input: Tensor) -> bool:
    """Whether the fused kernel takes ``input``: a CPU tensor of rows of channels, float32 or bfloat16."""
    if input.device.type != "cpu" or input.dtype not in (torch.float32, torch.bfloat16):
        return False
    if input.dim() == 4:
        return input.is_contiguous(memory_format=torch.channels_last)
    return input.dim() == 2 and input.is_contiguous()


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise: y = weight (x - mean) rstd + bias with the batch's own mean and rstd of each channel.

    rstd = 1 / sqrt(var + eps), var without Bessel's correction. Reads the input twice and writes the output
    once; the statistics are shifted sums merged in float64. Running statistics are not touched.
    Not differentiable by autograd: :func:`batch_norm_backward` is its gradient.
    Ioffe & Szegedy, ICML 2015.

    Args:
        input: [N, C] contiguous or [N, C, H, W] in channels_last; float32 or bfloat16, on the CPU.
        weight: [C] float32, or None for ones.
        bias: [C] float32, or None for zeros.
        eps: added to the biased variance.
        groups: equal runs of consecutive samples, each normalised by itself; divides N.

    Returns:
        y like ``input``, and mean and rstd as float32 [C]; [groups, C] for several groups.

    Raises:
        ValueError: layout or shapes do not fit (see :func:`supports_batch_norm`), or groups that do not
            divide.
        TypeError: another dtype.
    """
    y, mean, rstd = torch.ops.pynas.batch_norm.default(
        input.detach(), detached(weight), detached(bias), float(eps), groups
    )
    return y, mean, rstd


def batch_norm_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
) -> Tensor:
    """dL/dx = weight rstd (g - mean(g) - xhat mean(g xhat)), g = dL/dy, means over a group's rows.

    Args:
        grad_output: like ``input``.
        input: what :func:`batch_norm` was given.
        weight: what :func:`batch_norm` was given.
        mean: [C] or [groups, C], as it returned.
        rstd: likewise.
    """
    gradient: Tensor = torch.ops.pynas.batch_norm_backward.default(
        grad_output.detach(), input.detach(), detached(weight), mean, rstd
    )
    return gradient


def batch_norm_double_backward(
    adjoint: Tensor, grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`batch_norm_backward` for ``grad_output`` and ``input``, mean and rstd not constant.

    With a the adjoint of dL/dx, g = dL/dy, n = rstd (x - mean) and <.> means over a channel's rows:
    weight rstd (a - <a> - n <a n>) and
    -weight rstd^2 (n (<a g> - <a> <g> - 3 <a n> <g n>) + <g n> (a - <a>) + <a n> (g - <g>)).

    Args:
        adjoint: like ``input``.
        grad_output: what :func:`batch_norm_backward` was given.
        input: likewise.
        weight: likewise.
        mean: likewise.
        rstd: likewise.
    """
    of_grad, of_input = torch.ops.pynas.batch_norm_double_backward.default(
        adjoint.detach(), grad_output.detach(), input.detach(), detached(weight), mean, rstd
    )
    return of_grad, of_input


def batch_norm_reference(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the definition, differentiable."""
    if groups > 1:
        parts = [batch_norm_reference(part, weight, bias, eps) for part in input.chunk(groups)]
        means, rstds = (torch.stack([part[i] for part in parts]) for i in (1, 2))
        return torch.cat([part[0] for part in parts]), means, rstds
    dims = [d for d in range(input.dim()) if d != 1]
    x = input if input.dtype == torch.float64 else input.float()
    mean = x.mean(dims)
    rstd = (x.var(dims, correction=0) + eps).rsqrt()
    y = (x - _channels(mean, x)) * _channels(rstd, x)
    y = y if weight is None else y * _channels(weight, x)
    y = y if bias is None else y + _channels(bias, x)
    return y.to(input.dtype), mean, rstd


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _fake(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (groups, input.shape[1]) if groups > 1 else (input.shape[1],)
    statistics = input.new_empty(shape, dtype=torch.float32)
    return torch.empty_like(input), statistics, torch.empty_like(statistics)


def _fake_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
) -> Tensor:
    return torch.empty_like(input)


def _fake_double_backward(
    adjoint: Tensor, grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(input)


register_fake("batch_norm", _fake)
register_fake("batch_norm_double_backward", _fake_double_backward)
register_fake("batch_norm_backward", _fake_backward)
