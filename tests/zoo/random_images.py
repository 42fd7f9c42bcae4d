# ruff: noqa: E501 - one block a line
"""Blocks of random networks for images [C, H, W] and clips [C, T, H, W]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.zoo.random_parts import Block, Choose, Made, Shape, block, divisors, keeping, same, weight
from tests.zoo.random_weights import matrix

CONVOLUTIONS = {3: nn.Conv2d, 4: nn.Conv3d}
TRANSPOSED = {3: nn.ConvTranspose2d, 4: nn.ConvTranspose3d}
NORMS = {3: (nn.BatchNorm2d, nn.InstanceNorm2d), 4: (nn.BatchNorm3d, nn.InstanceNorm3d)}


def measured(module: nn.Module, shape: Shape) -> Made:
    """A module with the shape that comes out of it."""
    with torch.no_grad():
        return module, tuple(module.double().eval()(torch.zeros(2, *shape, dtype=torch.float64)).shape[1:])


@block(3, 4)
def convolution(choose: Choose[Any], shape: Shape) -> Made:
    c, *space = shape
    groups = choose(divisors(c))
    size = tuple(choose((1, 2, 3)) for _ in space)
    mode = choose(("zeros", "zeros", "circular", "reflect")) if min(space) > 2 else "zeros"
    layer = CONVOLUTIONS[len(shape)](
        c, groups * choose((1, 2)), size, stride=choose((1, 2)),
        padding=tuple(k // 2 + (k // 2 == 0 and choose((0, 1))) if mode == "zeros" else k // 2 for k in size),
        groups=groups, bias=choose((True, False)), padding_mode=mode,
        dilation=choose((1, 2)) if min(space) > 4 else 1,
    )  # fmt: skip
    if choose((False, False, True)):
        layer = parametrizations.weight_norm(layer.double(), dim=choose((0, 1)))
    return measured(layer, shape)


@block(3, 4)
def transposed(choose: Choose[Any], shape: Shape) -> Made:
    c = shape[0]
    groups = choose(divisors(c))
    if min(shape[1:]) > 6 or max(shape[1:]) > 8:
        return nn.Identity(), shape
    stride = choose((1, 2))
    layer = TRANSPOSED[len(shape)](
        c, groups * choose((1, 2)), choose((2, 3)), stride=stride,
        padding=choose((0, 1)) if min(shape[1:]) > 2 else 0, groups=groups,
        bias=choose((True, False)), output_padding=stride - 1 and choose((0, 1)),
    )  # fmt: skip
    return measured(layer, shape)


@block(3, 4)
@keeping
def norm(choose: Choose[Any], shape: Shape) -> Made:
    c = shape[0]
    batch, instance = NORMS[len(shape)]
    spread = torch.Size(shape[1:]).numel() > 1
    make = choose(
        (
            lambda: batch(c),
            lambda: instance(c, affine=True) if spread else batch(c),
            lambda: nn.GroupNorm(choose(divisors(c)), c) if spread else batch(c),
            lambda: batch(c, affine=choose((True, False))),
        )
    )
    return make(), shape


@block(3)
@keeping
def computed(choose: Choose[Any], shape: Shape) -> Made:
    """Convolutions whose weight is computed, also for each sample."""
    c, _, _ = shape
    f = choose((
        lambda k, x: F.conv2d(x, k.w().view(c, c, 1, 1), k.b),
        lambda k, x: F.conv2d(x, k.w()[..., None, None] * k.mask, padding=1),
        lambda k, x: F.conv2d(x, k.b.view(c, 1, 1, 1).expand(c, 1, 3, 3) * k.mask, padding=1, groups=c),
        lambda k, x: F.conv2d(x, k.b.exp()[:, None, None, None] * k.w().view(c, c, 1, 1)),
        lambda k, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), torch.einsum("oi,hw->oihw", k.w(), k.mask)),
        lambda k, x: _per_sample(x, k.w() * (1 + x.mean((2, 3)))[:, None]),
        lambda k, x: F.conv_transpose2d(x, k.w()[..., None, None] * k.mask, k.b, padding=1),
        lambda k, x: F.conv2d(x, k.w().t().contiguous().view(c, c, 1, 1), k.b * 2),
        lambda k, x: F.conv2d(x.flip(1), k.w()[:, :, None, None].expand(c, c, 1, 1)),
    ))  # fmt: skip
    return Block(f, w=matrix(choose, c, c), b=weight(c), mask=torch.rand(3, 3).double()), shape


def _per_sample(x: Tensor, w: Tensor) -> Tensor:
    """One convolution with as many groups as samples: w [B, C, C]."""
    b, c = x.shape[:2]
    y = F.conv2d(x.reshape(1, b * c, *x.shape[2:]), w.reshape(b * c, c, 1, 1), groups=b)
    return y.view(x.shape)


@block(3)
@keeping
def of_images(choose: Choose[Any], shape: Shape) -> Made:
    c, h, w = shape
    make = choose((
        lambda: Block(lambda k, x: x * torch.sigmoid(k.b(F.relu(k.a(x.mean((2, 3), keepdim=True))))), a=nn.Conv2d(c, 2, 1), b=nn.Conv2d(2, c, 1)),
        lambda: Block(lambda k, x: k.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(c)),
        lambda: nn.PReLU(choose((1, c))), lambda: nn.LocalResponseNorm(2),
        lambda: Block(lambda k, x: k.gamma * k.b(F.gelu(k.a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2), a=nn.Linear(c, 3), b=nn.Linear(3, c), gamma=weight(c, 1, 1)),
        lambda: Block(lambda k, x: (k.a(x.flatten(2)) + x.flatten(2)).view(x.shape), a=nn.Linear(h * w, h * w)),
        lambda: Block(lambda k, x: F.max_pool2d(x, 3, 1, 1) + k.s, s=weight(1)),
        lambda: Block(lambda k, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x),
        lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Conv2d(c, c, 1)),
        lambda: Block(lambda k, x: x + F.interpolate(k.table, size=(h, w), mode=choose_mode, align_corners=False), table=weight(1, c, 2, 3)),
        lambda: Block(lambda k, x: F.interpolate(F.adaptive_avg_pool2d(k.a(x), 1), size=(h, w)) * x, a=nn.Conv2d(c, c, 1)),
        lambda: Block(lambda k, x: k.rnn(x.permute(0, 2, 3, 1).reshape(-1, w, c))[0].reshape(-1, h, w, c).permute(0, 3, 1, 2), rnn=nn.GRU(c, c, batch_first=True)),
        lambda: Block(lambda k, x: F.grid_sample(x, F.affine_grid((k.t + torch.eye(2, 3)).expand(len(x), 2, 3), list(x.shape), align_corners=False), align_corners=False), t=weight(2, 3)),
        lambda: Block(lambda k, x: x.contiguous(memory_format=torch.channels_last) * k.s, s=weight(c, 1, 1)),
        lambda: Block(lambda k, x: x * k.r[:, None] + k.q, r=weight(h), q=weight(w)),
        lambda: Block(lambda k, x: torch.einsum("bchw,co,h->bohw", x, k.m, k.r), m=weight(c, c), r=weight(h)),
        lambda: nn.Sequential(nn.Dropout2d(0.0), nn.BatchNorm2d(c), nn.ReLU(inplace=True)),
        lambda: Block(lambda k, x: F.unfold(x, 3, padding=1).view(len(x), c, 9, h, w).mul(k.k.view(9, 1, 1)).sum(2), k=weight(9)),
        lambda: Block(lambda k, x: F.lp_pool2d(x.exp(), 2, 1) * k.s, s=weight(1)),
        lambda: Block(lambda k, x: torch.cat([k.a(x[:, :1]), x[:, 1:]], 1), a=nn.Conv2d(1, 1, 3, padding=1)),
        lambda: Block(lambda k, x: torch.cat([x, k.p.expand(len(x), -1, h, w)], 1)[:, 1:], p=weight(1, 1, 1)),
    ))  # fmt: skip
    choose_mode = choose(("bilinear", "bicubic"))
    return make(), shape


@block(3)
@keeping
def patches(choose: Choose[Any], shape: Shape) -> Made:
    """Windows, rows or columns, folded into the batch."""
    c, h, w = shape
    p, q = choose(divisors(h)), choose(divisors(w))
    inner = same(choose, (p * q, c))
    kind = choose((0, 1, 2, 3))
    if kind == 0:

        def run(k: Any, x: Tensor) -> Tensor:
            y = x.view(-1, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1).reshape(-1, p * q, c)
            y = k.inner(y).view(-1, h // p, w // q, p, q, c)
            return y.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
    elif kind == 1:
        inner = same(choose, (w, c))

        def run(k: Any, x: Tensor) -> Tensor:
            return k.inner(x.permute(0, 2, 3, 1).flatten(0, 1)).view(-1, h, w, c).permute(0, 3, 1, 2)
    elif kind == 2:
        inner = same(choose, (h, c))

        def run(k: Any, x: Tensor) -> Tensor:
            y = k.inner(x.permute(3, 0, 2, 1).reshape(-1, h, c)).view(w, -1, h, c)
            return y.permute(1, 3, 2, 0)
    else:
        inner = same(choose, (h, w))

        def run(k: Any, x: Tensor) -> Tensor:
            return k.inner(x.reshape(-1, h, w)).view(-1, c, h, w)

    return Block(lambda k, x: run(k, x.contiguous()), inner=inner), shape


@block(3)
def from_images(choose: Choose[Any], shape: Shape) -> Made:
    c, h, w = shape
    kind = choose(("tokens", "mean", "flatten", "patch", "clip", "resize", "pool", "shuffle"))
    if kind == "patch":
        p, q = choose(divisors(h)), choose(divisors(w))
        return Block(lambda k, x: k.a(x).flatten(2).transpose(1, 2), a=nn.Conv2d(c, 4, (p, q), (p, q))), (
            h // p * (w // q),
            4,
        )
    if kind == "pool" and min(h, w) > 1:
        return measured(
            choose(
                (
                    nn.MaxPool2d(2),
                    nn.AvgPool2d(2, ceil_mode=True),
                    nn.AdaptiveMaxPool2d((1, 2)),
                    nn.LPPool2d(1, 2),
                )
            ),
            shape,
        )
    if kind == "shuffle":
        return measured(
            choose(
                (
                    nn.PixelShuffle(2) if c % 4 == 0 else nn.Identity(),
                    nn.PixelUnshuffle(2) if h % 2 == w % 2 == 0 else nn.Identity(),
                    nn.ChannelShuffle(choose(divisors(c))),
                )
            ),
            shape,
        )
    if kind == "resize":
        size = (choose((2, 3)), choose((2, 4)))
        return Block(lambda k, x: F.interpolate(x, size=size, mode="bilinear")), (c, *size)
    if kind == "clip":
        n = choose(divisors(c))
        return nn.Unflatten(1, (n, c // n)), (n, c // n, h, w)
    if kind == "flatten":
        return nn.Flatten(), (c * h * w,)
    if kind == "mean":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (c,)
    return Block(lambda k, x: x.flatten(2).transpose(1, 2)), (h * w, c)


@block(4)
@keeping
def frames(choose: Choose[Any], shape: Shape) -> Made:
    """Frames, or places, folded into the batch."""
    c, t, h, w = shape
    if choose((True, False)):
        f = choose((
            lambda k, x: k.inner(x.transpose(1, 2).reshape(-1, c, h, w)).view(-1, t, c, h, w).transpose(1, 2),
            lambda k, x: torch.stack([k.inner(frame) for frame in x.unbind(2)], 2),
            lambda k, x: k.inner(x.permute(2, 0, 1, 3, 4).flatten(0, 1)).unflatten(0, (t, -1)).permute(1, 2, 0, 3, 4),
        ))  # fmt: skip
        return Block(f, inner=same(choose, (c, h, w))), shape
    return Block(
        lambda k, x: k.inner(x.permute(0, 3, 4, 2, 1).reshape(-1, t, c)).view(-1, h, w, t, c).permute(0, 4, 3, 1, 2),
        inner=same(choose, (t, c)),
    ), shape  # fmt: skip


@block(4)
def from_clips(choose: Choose[Any], shape: Shape) -> Made:
    c, t, h, w = shape
    kind = choose(("mean", "fold", "pool", "tokens", "flatten"))
    if kind == "mean":
        return Block(lambda k, x: (x * k.s.view(-1, 1, 1)).mean(2), s=weight(t)), (c, h, w)
    if kind == "fold":
        return nn.Flatten(1, 2), (c * t, h, w)
    if kind == "pool" and min(t, h, w) > 1:
        return measured(choose((nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d((1, 2, 2)))), shape)
    if kind == "flatten":
        return nn.Flatten(), (c * t * h * w,)
    return Block(lambda k, x: x.flatten(2).transpose(1, 2)), (t * h * w, c)
