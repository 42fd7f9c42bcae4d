"""Gradients of normalized_sum: the first by a compiled operator, the second through its definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pynas.ops._moments import accumulate_dtype


def mask_of(flags: Sequence[bool]) -> int:
    """Bit k is flag k."""
    return sum(1 << k for k, flag in enumerate(flags) if flag)


def signed(mask: int) -> int:
    """A mask of 64 bits as the int64 that a schema's `int` holds."""
    return mask - (1 << 64) if mask >> 63 else mask


def bits(mask: int, count: int) -> list[int]:
    """The set bits below `count`, ascending."""
    return [k for k in range(count) if mask >> k & 1]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    zs, weights, normalized, gamma, gamma_of, beta, beta_of, running_mean, _, batch_statistics, eps = inputs
    _, mean, rstd, var = output
    ctx.save_for_backward(weights, mean, rstd, *zs, *gamma, *beta)
    ctx.counts = len(zs), len(gamma), len(running_mean)
    ctx.options = normalized, gamma_of, beta_of, batch_statistics, eps
    ctx.mark_non_differentiable(mean, rstd, var)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Any, ...]:
    weights, mean, rstd, *lists = ctx.saved_tensors
    count, scaled, tracked = ctx.counts
    zs, gamma, beta = lists[:count], lists[count : count + scaled], lists[count + scaled :]
    normalized, gamma_of, beta_of, batch_statistics, eps = ctx.options
    dz: list[Tensor | None] = [None] * count
    dgamma: list[Tensor | None] = [None] * len(gamma)
    dbeta: list[Tensor | None] = [None] * len(beta)
    dw = None
    if grad_output is not None:
        wanted = mask_of(ctx.needs_input_grad[0])
        dw, scale_rows, shift_rows, input_gradients = torch.ops.pynas.normalized_sum_backward.default(
            grad_output,
            zs,
            weights,
            normalized,
            gamma,
            gamma_of,
            beta,
            beta_of,
            mean,
            rstd,
            batch_statistics,
            eps,
            signed(wanted),
        )
        for k, gradient in zip(bits(wanted, count), input_gradients, strict=True):
            dz[k] = gradient
        dgamma = [scale_rows[k].to(t.dtype) for k, t in zip(bits(gamma_of, count), gamma, strict=True)]
        dbeta = [shift_rows[k].to(t.dtype) for k, t in zip(bits(beta_of, count), beta, strict=True)]
    buffers = [None] * tracked
    return dz, dw, None, dgamma, None, dbeta, None, buffers, buffers, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    g, zs, weights, normalized, gamma, gamma_of, beta, beta_of, mean, rstd, batch_statistics, eps, wanted = (
        inputs
    )
    ctx.save_for_backward(g, weights, mean, rstd, *zs, *gamma, *beta)
    ctx.counts = len(zs), len(gamma)
    ctx.options = normalized, gamma_of, beta_of, batch_statistics, eps, wanted


def _double_backward(
    ctx: Any, up_weights: Tensor, up_gamma: Tensor, up_beta: Tensor, up_inputs: Any
) -> tuple[Any, ...]:
    """Differentiates the definition twice; the statistics are functions of the inputs there."""
    grad_output, weights, mean, rstd, *lists = ctx.saved_tensors
    count, scaled = ctx.counts
    normalized, gamma_of, beta_of, batch_statistics, eps, wanted = ctx.options
    further = torch.is_grad_enabled()  # whether this is to be differentiated again

    def source(tensor: Tensor) -> Tensor:
        return tensor if further and tensor.requires_grad else tensor.detach().requires_grad_()

    with torch.enable_grad():
        g, weights = source(grad_output), source(weights)
        zs = [source(z) for z in lists[:count]]
        given = {
            "gamma": dict(zip(bits(gamma_of, count), lists[count : count + scaled], strict=True)),
            "beta": dict(zip(bits(beta_of, count), lists[count + scaled :], strict=True)),
        }
        missing = {"gamma": torch.ones_like(mean[0]), "beta": torch.zeros_like(mean[0])}
        channels = {
            name: [source(given[name].get(k, missing[name])) for k in range(count)]
            for name in ("gamma", "beta")
        }
        fixed = None if batch_statistics else (mean, rstd)
        y = _definition(zs, weights, normalized, channels["gamma"], channels["beta"], fixed, eps)
        sources = [weights, *zs, *channels["gamma"], *channels["beta"]]
        first = _gradients([y], sources, [g], create_graph=True)
        upstream = [up_weights, *[None] * count, *up_gamma, *up_beta]
        for k, up in zip(bits(wanted, count), up_inputs, strict=True):
            upstream[1 + k] = up
        second = _gradients(first, [g, *sources], upstream, create_graph=further)
    dg, dw, *rest = second
    dz, dgamma, dbeta = rest[:count], rest[count : 2 * count], rest[2 * count :]
    return (
        dg,
        dz,
        dw,
        None,
        [dgamma[k] for k in bits(gamma_of, count)],
        None,
        [dbeta[k] for k in bits(beta_of, count)],
        *[None] * 6,
    )


def _definition(
    zs: Sequence[Tensor],
    weights: Tensor,
    normalized: int,
    gamma: Sequence[Tensor],
    beta: Sequence[Tensor],
    fixed: tuple[Tensor, Tensor] | None,
    eps: float,
) -> Tensor:
    """The sum without a look at the weights, so that it can be traced: masks in place of what is skipped."""
    wide = accumulate_dtype(zs[0].dtype)
    y = torch.zeros_like(zs[0], dtype=wide)
    for k, z in enumerate(zs):
        alive = weights[k] != 0
        term = torch.where(alive, z.to(wide), 0)
        if normalized >> k & 1 and z.numel() > 0:
            scale, shift = gamma[k].to(wide).contiguous(), beta[k].to(wide).contiguous()
            mean, var = (None, None) if fixed is None else (fixed[0][k], fixed[1][k] ** -2)
            term = torch.nn.functional.batch_norm(
                term, mean, var, scale, shift, fixed is None, 0.0, eps if fixed is None else 0.0
            )
            term = torch.where(alive, term, 0)
        y = y + weights[k].to(wide) * term
    return y.to(zs[0].dtype)


def _gradients(
    outputs: Sequence[Tensor | None],
    sources: Sequence[Tensor],
    upstream: Sequence[Tensor | None],
    create_graph: bool,
) -> list[Tensor | None]:
    """torch.autograd.grad of those outputs that depend on something."""
    pairs = [(y, g) for y, g in zip(outputs, upstream, strict=True) if y is not None and g is not None]
    pairs = [(y, g) for y, g in pairs if y.requires_grad]
    if not pairs:
        return [None] * len(sources)
    ys, gs = zip(*pairs, strict=True)
    return list(torch.autograd.grad(ys, sources, gs, create_graph=create_graph, allow_unused=True))


torch.library.register_autograd("pynas::normalized_sum", _backward, setup_context=_save)
torch.library.register_autograd(
    "pynas::normalized_sum_backward", _double_backward, setup_context=_save_backward
)
