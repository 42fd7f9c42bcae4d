# ruff: noqa: E501 - one block a line
"""Blocks of random networks for samples of any number of dimensions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.zoo.random_parts import (
    Block,
    Choose,
    Made,
    Shape,
    block,
    broadcast_shape,
    keeping,
    same,
    weight,
)
from tests.zoo.random_weights import matrix

ACTIVATIONS = (
    torch.tanh, torch.sin, F.relu, torch.relu_, F.gelu, F.silu, lambda x: F.silu(x, inplace=True), F.hardswish,
    lambda x: x.mul_(0.5).add_(0.1), lambda x: x.sigmoid_(), F.mish, F.softplus, F.elu_, F.leaky_relu_, F.relu6,
    lambda x: x * torch.sigmoid(1.7 * x), F.hardsigmoid, F.celu, F.tanhshrink, lambda x: x.clamp(-1, 1),
)  # fmt: skip


@block()
@keeping
def activation(choose: Choose[Any], shape: Shape) -> Made:
    f = choose(ACTIVATIONS)
    return Block(lambda k, x: f(x * 1.1)), shape


@block()
@keeping
def broadcast(choose: Choose[Any], shape: Shape) -> Made:
    """A parameter that meets samples in some operator that broadcasts."""
    f = choose((
        torch.mul, torch.add, torch.sub, lambda x, p: p - x, lambda x, p: x / (p.square() + 1),
        lambda x, p: torch.lerp(x, p, 0.3),
        torch.maximum, lambda x, p: torch.where(x > 0, x, p), lambda x, p: torch.where(p > 0, x, -x) * p,
        lambda x, p: torch.addcmul(x, x, p), lambda x, p: (x * 1).add_(p), lambda x, p: (x * 1).mul_(p),
        lambda x, p: torch.stack(torch.broadcast_tensors(x, p)).sum(0), lambda x, p: torch.sub(x, p, alpha=2),
        lambda x, p: x + x * p, lambda x, p: torch.atan2(x, p.exp()), lambda x, p: torch.clamp(x, max=p + 1),
        lambda x, p: x.masked_fill(x < 0, 0) + p * x, lambda x, p: torch.hypot(x, p + 3),
        lambda x, p: x - p.expand_as(x),
        lambda x, p: torch.addcdiv(x, p, x.square() + 1), lambda x, p: x.lerp(x.tanh(), p),
    ))  # fmt: skip
    g = choose(
        (
            lambda p: p,
            torch.tanh,
            torch.exp,
            lambda p: p / (p.norm() + 1),
            lambda p: 2 * p,
            lambda p: p.softmax(-1),
        )
    )
    return Block(lambda k, x: f(x, g(k.p)), p=weight(*broadcast_shape(choose, shape))), shape


@block()
@keeping
def laid_out(choose: Choose[Any], shape: Shape) -> Made:
    """A parameter that is laid out over the batch first."""
    ones = [1] * len(shape)
    lay = choose((
        lambda p, b: p.expand(b, *shape), lambda p, b: p.repeat(b, *ones),
        lambda p, b: p.unsqueeze(0).expand(b, *shape),
        lambda p, b: p[None].repeat(b, *ones), lambda p, b: p.unsqueeze(0).repeat_interleave(b, 0),
        lambda p, b: torch.stack([p] * b), lambda p, b: p.broadcast_to((b, *shape)),
        lambda p, b: p[None].tile((b, *ones)),
        lambda p, b: torch.cat([p[None]] * b), lambda p, b: torch.zeros(b, *shape, dtype=p.dtype) + p,
        lambda p, b: p.new_ones(b, *ones) * p, lambda p, b: p.expand(b, *shape).contiguous(),
        lambda p, b: p.expand(b, *shape).clone(),
        lambda p, b: p[torch.zeros(b, dtype=torch.long)] if p.shape[0] == 1 and p.dim() > len(shape) else p.expand(b, *shape),
    ))  # fmt: skip
    f = choose(
        (
            torch.add,
            torch.mul,
            lambda x, p: torch.cat([x, p], -1)[..., : x.shape[-1]] + p,
            lambda x, p: torch.stack([x, p], 1).mean(1),
            lambda x, p: (x * p).tanh(),
        )
    )
    return Block(lambda k, x: f(x, lay(k.p, len(x))), p=weight(*shape)), shape


@block()
@keeping
def written(choose: Choose[Any], shape: Shape) -> Made:
    """A parameter that is written into a part of the samples."""

    def first(k: Any, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] = k.p + y[:, -1]
        return y

    def last(k: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        y[..., :1] = x[..., -1:]
        y[..., 1:] = x[..., 1:]
        y[:, -1] *= k.p
        return y

    def added(k: Any, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape, dtype=x.dtype)
        y += x
        y[:, :1] += k.p
        return y

    def indexed(k: Any, x: Tensor) -> Tensor:
        return x.index_add(1, torch.tensor([0]), k.p.expand(len(x), 1, *shape[1:]))

    return Block(
        choose((first, last, added, indexed)),
        p=weight(*shape[1:]) if len(shape) > 1 else nn.Parameter(torch.randn(())),
    ), shape


@block()
@keeping
def moved(choose: Choose[Any], shape: Shape) -> Made:
    """Values change places within a sample."""
    d = choose(range(1, len(shape) + 1))
    n = shape[d - 1]
    f = choose((
        lambda x: x.flip(d), lambda x: x.roll(1, d), lambda x: x.cumsum(d), lambda x: x.sort(d)[0],
        lambda x: torch.cat(x.split(1, d)[::-1], d),
        lambda x: torch.stack(x.unbind(d), d),
        lambda x: x.index_select(d, torch.randperm(n, generator=torch.Generator().manual_seed(0))),
        lambda x: torch.gather(x, d, x.argsort(d)), lambda x: x.softmax(d),
        lambda x: x - x.mean(d, keepdim=True), lambda x: F.normalize(x, dim=d),
        lambda x: x.contiguous().view(x.shape[0], -1).flip(1).view(x.shape),
        lambda x: x.reshape(len(x), -1).roll(1, -1).reshape(x.shape),
        lambda x: x.transpose(0, d).contiguous().transpose(0, d),
        lambda x: torch.cat([x[:, :1], x[:, 1:]], 1), lambda x: x.amax(d, keepdim=True) - x,
        lambda x: x[torch.arange(len(x))], lambda x: torch.stack([row.tanh() for row in x]),
        lambda x: x.movedim(0, -1).movedim(-1, 0),
        lambda x: torch.cat([x, -x]).view(2, *x.shape)[1], lambda x: torch.cat([x, 2 * x]).chunk(2)[0],
    ))  # fmt: skip
    return Block(lambda k, x: f(x)), shape


@block()
def residual(choose: Choose[Any], shape: Shape) -> Made:
    f = choose((
        lambda x, y: x + y, lambda x, y: x.add(y, alpha=0.5), lambda x, y: torch.sigmoid(y) * x,
        lambda x, y: torch.stack([x, y]).mean(0),
        lambda x, y: torch.cat([x, y], 1).unflatten(1, (2, -1)).sum(1), lambda x, y: torch.lerp(x, y, 0.4),
        lambda x, y: x + y - y.detach() / 2,
        lambda x, y: x.detach() + y, lambda x, y: torch.cat([x, y]).unflatten(0, (2, -1)).amax(0),
        lambda x, y: sum(torch.stack([x, y], 1).unbind(1)),
    ))  # fmt: skip
    return Block(lambda k, x: f(x, k.branch(x)), branch=same(choose, shape, choose((1, 2)))), shape


@block()
def branches(choose: Choose[Any], shape: Shape) -> Made:
    """Candidates, weighted by a softmax of parameters or by a gate that sees the sample."""
    a, b = same(choose, shape), same(choose, shape)
    gate = choose((
        lambda k, x: k.alpha.softmax(0).view(2, *[1] * x.dim()),
        lambda k, x: torch.sigmoid(x.flatten(1) @ k.w).t().reshape(2, -1, *[1] * len(shape)),
        lambda k, x: k.alpha.softmax(0).reshape(2, *[1] * x.dim()).expand(2, *x.shape),
    ))  # fmt: skip
    size = torch.Size(shape).numel()
    return Block(
        lambda k, x: (gate(k, x) * torch.stack([k.a(x), k.b(x)])).sum(0),
        a=a,
        b=b,
        alpha=weight(2),
        w=weight(size, 2),
    ), shape


@block()
def repeated(choose: Choose[Any], shape: Shape) -> Made:
    """The same block more than once."""
    scales = choose((None, weight(3)))

    def loop(k: Any, x: Tensor) -> Tensor:
        for step in range(choice):
            x = k.inner(x) if scales is None else x + k.scales[step] * k.inner(x)
        return x

    choice = choose((2, 3))
    return Block(loop, inner=same(choose, shape), scales=scales), shape


@block()
def wrapped(choose: Choose[Any], shape: Shape) -> Made:
    """A block under hooks, a checkpoint, or another mechanism that runs it."""
    inner = same(choose, shape)
    kind = choose(
        (
            "forward hook",
            "pre-hook",
            "tensor hook",
            "checkpoint",
            "full hook",
            "list",
            "sequential",
            "reversal",
            "no grad",
        )
    )
    if kind == "forward hook":
        p = weight(shape[-1])
        inner.register_parameter("hooked", p)
        inner.register_forward_hook(lambda m, x, y: y * m.hooked)
    elif kind == "pre-hook":
        p = weight(*shape)
        inner.register_parameter("hooked", p)
        inner.register_forward_pre_hook(lambda m, x: (x[0] + m.hooked,))
    elif kind == "full hook":
        inner.register_full_backward_hook(lambda m, gi, go: tuple(None if g is None else 1.5 * g for g in gi))
    f = {
        "tensor hook": lambda k, x: _doubled(k.inner(x)),
        "checkpoint": lambda k, x: checkpoint(k.inner, x, use_reentrant=False),
        "reversal": lambda k, x: k.inner(Reversal.apply(x)),
        "no grad": lambda k, x: k.inner(x) + _without(k.inner, x),
    }.get(kind, lambda k, x: k.inner(x))
    return Block(f, inner=nn.Sequential(inner) if kind in ("list", "sequential") else inner), shape


def _doubled(x: Tensor) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda g: 2 * g)
    return x


def _without(f: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return f(x)


class Reversal(torch.autograd.Function):
    """Passes on the opposite gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -0.5 * g


@block()
@keeping
def along(choose: Choose[Any], shape: Shape) -> Made:
    """A product along any one dimension, written in one of many ways."""
    d = choose(range(1, len(shape) + 1))
    n = shape[d - 1]
    letters = "bcdefg"[: len(shape) + 1]
    out = letters.replace(letters[d], "z")
    f = choose((
        lambda x, w: torch.einsum(f"{letters},z{letters[d]}->{out}", x, w),
        lambda x, w: torch.tensordot(x, w, ([d], [1])).movedim(-1, d),
        lambda x, w: F.linear(x.movedim(d, -1), w).movedim(-1, d),
        lambda x, w: (x.movedim(d, -1) @ w.mT).movedim(-1, d),
        lambda x, w: (w @ x.movedim(d, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, d),
        lambda x, w: torch.tensordot(w, x, ([1], [d])).movedim(0, d),
        lambda x, w: F.linear(x.transpose(d, -1), w).transpose(d, -1),
        lambda x, w: (x.unsqueeze(d) * w.view(n, n, *[1] * (len(shape) - d))).sum(d + 1),
        lambda x, w: torch.matmul(w, x.movedim(d, 1).reshape(len(x), n, -1)).view(x.movedim(d, 1).shape).movedim(1, d),
    ))  # fmt: skip
    return Block(lambda k, x: f(x, k.w()), w=matrix(choose, n, n)), shape


@block()
@keeping
def normalised(choose: Choose[Any], shape: Shape) -> Made:
    cut = choose(range(len(shape)))
    tail = shape[cut:]
    over = tuple(range(1 + cut, 1 + len(shape)))
    layer = choose((lambda: nn.LayerNorm(tail), lambda: nn.RMSNorm(tail), lambda: nn.LayerNorm(tail, bias=False), lambda: Block(
        lambda k, x: k.g * x * torch.rsqrt(x.pow(2).mean(over, keepdim=True) + 1e-3), g=weight(*tail)), lambda: Block(
        lambda k, x: (x - x.mean(over, keepdim=True)) / (x.var(over, keepdim=True, unbiased=False) + 1e-3).sqrt() * k.g + k.b, g=weight(*tail), b=weight(*tail))))  # fmt: skip
    return layer(), shape
