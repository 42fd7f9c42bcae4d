# ruff: noqa: E501 - one block a line
"""Blocks of random networks for features [D] and tokens [T, D]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.random_parts import Block, Choose, Made, Shape, block, divisors, keeping, same, weight
from tests.zoo.random_weights import matrix

SIZES = (2, 3, 4, 6)


@block(1, 2, 3, 4)
def linear(choose: Choose[Any], shape: Shape) -> Made:
    out = choose(SIZES)
    return nn.Linear(shape[-1], out, bias=choose((True, False))), (*shape[:-1], out)


@block(1, 2, 3)
def linear_computed(choose: Choose[Any], shape: Shape) -> Made:
    out, d = choose(SIZES), shape[-1]
    f = choose((
        lambda k, x: F.linear(x, k.w(), k.b), lambda k, x: x @ k.w().T + k.b,
        lambda k, x: torch.matmul(x, k.w().mT), lambda k, x: F.linear(x, k.w(), k.b.tanh()),
        lambda k, x: torch.addmm(k.b, x.reshape(-1, d), k.w().t()).view(*x.shape[:-1], out),
        lambda k, x: torch.mm(x.reshape(-1, d), k.w().t()).view(*x.shape[:-1], out),
        lambda k, x: torch.einsum("...i,oi->...o", x, k.w()),
        lambda k, x: torch.bmm(x.reshape(len(x), -1, d), k.w().t().expand(len(x), d, out)).view(*x.shape[:-1], out),
        lambda k, x: torch.mm(k.w(), x.reshape(-1, d).t()).t().reshape(*x.shape[:-1], out),
        lambda k, x: x.unsqueeze(-2).mul(k.w()).sum(-1),
        lambda k, x: F.conv1d(x.reshape(len(x), -1, d).transpose(1, 2), k.w()[..., None], k.b).transpose(1, 2).reshape(*x.shape[:-1], out),
    ))  # fmt: skip
    return Block(f, w=matrix(choose, out, d), b=weight(out)), (*shape[:-1], out)


@block(1, 2, 3)
@keeping
def tied(choose: Choose[Any], shape: Shape) -> Made:
    """One matrix there and back."""
    d = shape[-1]
    f = choose(
        (
            lambda x, w: torch.tanh(F.linear(x, w)) @ w,
            lambda x, w: (x @ w.t()).sigmoid() @ w,
            lambda x, w: (x @ w.t()).softmax(-1) @ w + w.mean(0),
        )
    )
    return Block(lambda k, x: f(x, k.w()), w=matrix(choose, choose(SIZES), d)), shape


@block(1, 2)
@keeping
def adapter(choose: Choose[Any], shape: Shape) -> Made:
    d = shape[-1]
    parts = {"down": nn.Linear(d, 1, bias=False), "up": nn.Linear(1, d), "base": nn.Linear(d, d)}
    frozen = choose((True, False))
    parts["base"].weight.requires_grad_(not frozen)
    f = choose(
        (
            lambda k, x: k.base(x) + 0.5 * k.up(k.down(x)),
            lambda k, x: F.linear(x, k.base.weight + k.up.weight @ k.down.weight, k.base.bias),
        )
    )
    return Block(f, **parts), shape


@block(1, 2)
@keeping
def bilinear(choose: Choose[Any], shape: Shape) -> Made:
    d = shape[-1]
    f = choose(
        (
            lambda k, x: k.a(x, torch.sin(x)),
            lambda k, x: k.a(x.tanh(), k.b(x)),
            lambda k, x: F.bilinear(x, k.b(x), k.a.weight * k.g, k.a.bias),
        )
    )
    return Block(f, a=nn.Bilinear(d, d, d), b=nn.Linear(d, d), g=weight(1)), shape


@block(1)
def to_tokens(choose: Choose[Any], shape: Shape) -> Made:
    (d,) = shape
    t = choose(SIZES)
    kind = choose(("unflatten", "expand", "steps", "slots"))
    if kind == "unflatten":
        n = choose(divisors(d))
        return nn.Unflatten(1, (n, d // n)), (n, d // n)
    if kind == "expand":
        return Block(lambda k, x: x[:, None].expand(-1, t, -1) + k.p, p=weight(t, d)), (t, d)
    if kind == "steps":
        return Block(lambda k, x: torch.stack([torch.sin(i * x) for i in range(1, t + 1)], 1)), (t, d)
    return Block(lambda k, x: torch.einsum("bd,td->btd", x, k.w()), w=matrix(choose, t, d)), (t, d)


@block(1)
@keeping
def prototypes(choose: Choose[Any], shape: Shape) -> Made:
    (d,) = shape
    f = choose((
        lambda k, x: -torch.cdist(x, k.w()), lambda k, x: F.cosine_similarity(x[:, None], k.w(), dim=-1),
        lambda k, x: (x[:, None] - k.w()).square().mean(-1),
        lambda k, x: (x @ k.w().T).softmax(-1) @ k.w(),
        lambda k, x: torch.exp(-(x[:, None] - k.w()).abs().sum(-1)),
        lambda k, x: F.linear(F.normalize(x), F.normalize(k.w())),
        lambda k, x: k.w()[x.argmax(-1)] * x, lambda k, x: F.embedding(x.argmin(-1), k.w()) + x,
        lambda k, x: torch.addmv(x[:, 0], x, k.w()[0])[:, None] + x,
    ))  # fmt: skip
    return Block(f, w=matrix(choose, d, d)), shape


@block(1)
@keeping
def of_features(choose: Choose[Any], shape: Shape) -> Made:
    (d,) = shape
    cell = choose((nn.LSTMCell, nn.GRUCell, nn.RNNCell))
    make = choose((
        lambda: nn.BatchNorm1d(d), lambda: nn.PReLU(choose((1, d))),
        lambda: Block(lambda k, x: F.glu(k.a(x)), a=nn.Linear(d, 2 * d)),
        lambda: nn.GroupNorm(choose(divisors(d)[:-1]), d) if choose((True, False)) and d > 3 else nn.BatchNorm1d(d),
        lambda: Block(lambda k, x: _first(k.cell(x)), cell=cell(d, d)), lambda: Block(lambda k, x: _first(k.cell(x, k.h.expand(len(x), d)))
                      if cell is not nn.LSTMCell else k.cell(x, (k.h.expand(len(x), d), torch.zeros_like(x)))[0], cell=cell(d, d), h=weight(d)),
        lambda: Block(lambda k, x: k.a(x.unsqueeze(1)).mean(1), a=nn.Conv1d(1, 3, 3, padding=1)),
        lambda: Block(lambda k, x: torch.einsum("bed,be->bd", torch.einsum("bi,eid->bed", x, k.e), k.g(x).softmax(-1)), e=weight(3, d, d), g=nn.Linear(d, 3)),
        lambda: Block(lambda k, x: torch.vmap(lambda row: torch.tanh(k.a.weight @ row))(x), a=nn.Linear(d, d)),
        lambda: Block(lambda k, x: x * (1 + k.film(x)[:, :d]) + k.film(x)[:, d:], film=nn.Linear(d, 2 * d)),
        lambda: Block(lambda k, x: torch.cat([k.a(x), k.b(x)], -1)[:, :d], a=nn.Linear(d, max(d // 2, 1)), b=nn.Linear(d, d)),
        lambda: Block(lambda k, x: torch.linalg.solve(k.a.weight + 4 * torch.eye(d), x.T).T, a=nn.Linear(d, d)),
    ))  # fmt: skip
    return make(), shape


def _first(y: Any) -> Tensor:
    return y[0] if isinstance(y, tuple) else y


@block(2)
def to_features(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    kind = choose(("mean", "max", "first", "last", "flatten", "pool", "last hidden", "bag"))
    if kind == "flatten":
        return nn.Flatten(), (t * d,)
    if kind == "pool":
        return Block(lambda k, x: ((x @ k.q).softmax(1)[..., None] * x).sum(1), q=weight(d)), (d,)
    if kind == "last hidden":
        rnn = choose((nn.GRU, nn.RNN))
        return Block(lambda k, x: k.rnn(x)[1][-1], rnn=rnn(d, 3, batch_first=True)), (3,)
    if kind == "bag":
        return Block(
            lambda k, x: k.bag(x.argsort(1)[..., 0]), bag=nn.EmbeddingBag(t, d, mode=choose(("mean", "sum")))
        ), (d,)
    f = {
        "mean": lambda x: x.mean(1),
        "max": lambda x: x.amax(1),
        "first": lambda x: x[:, 0],
        "last": lambda x: x.select(1, -1),
    }[kind]
    return Block(lambda k, x: f(x)), (d,)


@block(2)
def to_images(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    h = choose(divisors(t))
    kind = choose(("grid", "map", "gram"))
    if kind == "grid":
        return Block(lambda k, x: x.transpose(1, 2).unflatten(2, (h, t // h))), (d, h, t // h)
    if kind == "map":
        return Block(lambda k, x: x.unsqueeze(1)), (1, t, d)
    return Block(lambda k, x: (k.q(x) @ x.mT)[:, None], q=nn.Linear(d, d)), (1, t, t)


@block(1, 2, 3)
@keeping
def perceptron(choose: Choose[Any], shape: Shape) -> Made:
    d, hidden = shape[-1], choose(SIZES)
    kind = choose((0, 1, 2))
    if kind == 0:
        return nn.Sequential(nn.Linear(d, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, d)), shape
    if kind == 1:
        parts = {"gate": nn.Linear(d, hidden), "up": nn.Linear(d, hidden), "down": nn.Linear(hidden, d)}
        return Block(lambda k, x: k.down(F.silu(k.gate(x)) * k.up(x)), **parts), shape
    return Block(
        lambda k, x: k.b(torch.mul(*k.a(x).chunk(2, -1))), a=nn.Linear(d, 2 * hidden), b=nn.Linear(hidden, d)
    ), shape


@block(2, 3)
@keeping
def folded(choose: Choose[Any], shape: Shape) -> Made:
    """Positions are folded into the batch, in either order, for a block of one dimension less."""
    n, rest = shape[0], shape[1:]
    inner = same(choose, rest)
    kind = choose((0, 1, 2, 3, 4))
    if kind == 0:
        return Block(lambda k, x: k.inner(x.reshape(-1, *rest)).view(x.shape), inner=inner), shape
    if kind == 1:
        return Block(lambda k, x: k.inner(x.flatten(0, 1)).unflatten(0, (-1, n)), inner=inner), shape
    if kind == 2:
        return Block(
            lambda k, x: k.inner(x.transpose(0, 1).reshape(-1, *rest)).view(n, -1, *rest).transpose(0, 1),
            inner=inner,
        ), shape
    if kind == 3:
        return Block(
            lambda k, x: k.inner(torch.cat(x.unbind(1))).chunk(n)[0].unsqueeze(1) + x, inner=inner
        ), shape
    return Block(lambda k, x: torch.stack([k.inner(row) for row in x.transpose(0, 1)], 1), inner=inner), shape


@block()
@keeping
def dynamic(choose: Choose[Any], shape: Shape) -> Made:
    """Weights that a sample makes for itself."""
    n = shape[-1]
    size = torch.Size(shape).numel()
    f = choose((
        lambda w, x: torch.bmm(x.reshape(len(x), -1, n), w).view(x.shape),
        lambda w, x: torch.einsum("b...i,bij->b...j", x, w),
        lambda w, x: x * w.softmax(-1).mean(1).view(-1, *[1] * (len(shape) - 1), n),
        lambda w, x: torch.baddbmm(x.reshape(len(x), -1, n), x.reshape(len(x), -1, n), w).view(x.shape),
    ))  # fmt: skip
    return Block(lambda k, x: f(k.maker(x.flatten(1)).view(-1, n, n), x), maker=nn.Linear(size, n * n)), shape
