# ruff: noqa: E501 - one block a line
"""Blocks of random networks for tokens [T, D]: attention, recurrence, convolutions over time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.zoo.random_parts import Block, Choose, Made, Shape, block, divisors, keeping, same, weight
from tests.zoo.random_weights import matrix


@block(2)
@keeping
def attention(choose: Choose[Any], shape: Shape) -> Made:
    """Queries, keys and values of its own, with one of several kinds of positions."""
    t, d = shape
    heads = choose(divisors(d))
    e = d // heads
    source = choose((
        lambda k, x: k.qkv(x).view(-1, t, 3, heads, e).permute(2, 0, 3, 1, 4),
        lambda k, x: [y.unflatten(-1, (heads, e)).transpose(1, 2) for y in k.qkv(x).chunk(3, -1)],
        lambda k, x: [F.linear(x, w).view(-1, t, heads, e).transpose(1, 2) for w in k.qkv.weight.chunk(3)],
        lambda k, x: torch.einsum("btd,chde->cbhte", x, k.qkv.weight.view(3, heads, e, d).transpose(2, 3)),
    ))  # fmt: skip
    bias = choose((
        lambda k: None, lambda k: k.table[k.index].permute(2, 0, 1),
        lambda k: torch.full((t, t), -torch.inf).triu(1).double(),
        lambda k: F.embedding(k.index, k.table).permute(2, 0, 1)[None],
        lambda k: k.table[k.index.view(-1)].view(t, t, -1).sum(-1),
        lambda k: k.table[:t, :1].T.expand(t, t),
    ))  # fmt: skip

    def weighed(k: Any, x: Tensor) -> Tensor:
        q, key, v = source(k, x)
        b = bias(k)
        if style == "sdpa":
            y = F.scaled_dot_product_attention(q, key, v, attn_mask=b)
        else:
            product = q @ key.mT if style == "matmul" else torch.einsum("bhid,bhjd->bhij", q, key)
            if style == "bmm":
                product = torch.bmm(q.reshape(-1, t, e), key.reshape(-1, t, e).mT).view(-1, heads, t, t)
            product = product / e**0.5 if b is None else product / e**0.5 + b
            a = product.softmax(-1)
            y = a @ v if style != "einsum" else torch.einsum("bhij,bhjd->bhid", a, v)
        return k.out(y.transpose(1, 2).reshape(-1, t, d))

    style = choose(("sdpa", "matmul", "einsum", "bmm"))
    index = torch.arange(t)[:, None] - torch.arange(t) + t - 1
    parts = {"qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d), "table": weight(2 * t - 1, heads)}
    return Block(weighed, index=index, **parts), shape


@block(2)
@keeping
def packaged(choose: Choose[Any], shape: Shape) -> Made:
    """PyTorch's own attention and encoder layers."""
    d = shape[1]
    heads, first = choose(divisors(d)), choose((True, False))
    turned = (lambda x: x) if first else (lambda x: x.transpose(0, 1))
    kind = choose(("self", "encoder", "memory", "biased", "widths"))
    if kind == "encoder":
        layer = nn.TransformerEncoderLayer(
            d, heads, 5, 0.0, batch_first=first, norm_first=choose((True, False))
        )
        return Block(lambda k, x: turned(k.layer(turned(x))), layer=layer), shape
    if kind == "memory":
        layer = nn.MultiheadAttention(d, heads, batch_first=first)
        return Block(
            lambda k, x: turned(k.layer(turned(x), turned(k.m(x[:, :2])), turned(k.m(x[:, :2])))[0]),
            layer=layer,
            m=nn.Linear(d, d),
        ), shape
    if kind == "widths":
        layer = nn.MultiheadAttention(d, heads, kdim=d + 1, vdim=d + 1, batch_first=first)
        return Block(
            lambda k, x: turned(k.layer(turned(x), *[turned(F.pad(x, (0, 1)))] * 2)[0]), layer=layer
        ), shape
    layer = nn.MultiheadAttention(
        d,
        heads,
        batch_first=first,
        bias=choose((True, False)),
        add_bias_kv=kind == "biased",
        add_zero_attn=choose((True, False)),
    )
    return Block(
        lambda k, x: turned(k.layer(*[turned(x)] * 3, need_weights=heads > 1)[0]), layer=layer
    ), shape


@block(2)
def class_token(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    n = choose((1, 2))
    lay = choose((
        lambda p, b: p.expand(b, -1, -1), lambda p, b: p.repeat(b, 1, 1), lambda p, b: p.expand(b, n, d),
        lambda p, b: torch.tile(p, (b, 1, 1)),
        lambda p, b: torch.cat([p] * b), lambda p, b: p.squeeze(0).expand(b, n, d),
        lambda p, b: p[0][None].repeat(b, 1, 1), lambda p, b: p.tanh().expand(b, -1, -1).clone(),
    ))  # fmt: skip
    front = choose((True, False))
    put = choose((
        lambda c, x: torch.cat([c, x] if front else [x, c], 1), lambda c, x: torch.hstack([c, x]),
        lambda c, x: torch.cat((c.transpose(0, 1), x.transpose(0, 1))).transpose(0, 1),
    ))  # fmt: skip
    return Block(lambda k, x: put(lay(k.token, len(x)), x), token=weight(1, n, d)), (t + n, d)


@block(2)
@keeping
def positions(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    f = choose((
        lambda k, x: x + k.table[:t], lambda k, x: x + k.embedding(torch.arange(t)),
        lambda k, x: x + k.embedding(torch.arange(t).expand(len(x), t)),
        lambda k, x: x + F.interpolate(k.table.T[None], size=t, mode="linear")[0].T,
        lambda k, x: x + k.table[None, :t].expand(len(x), -1, -1),
        lambda k, x: (x.transpose(0, 1) + k.table[:t, None]).transpose(0, 1),
        lambda k, x: x + torch.cat([k.table[:1], k.table[1:t]]),
        lambda k, x: (x.reshape(-1, d) + k.table[:t].repeat(len(x), 1)).view(x.shape),
        lambda k, x: x * k.embedding.weight.index_select(0, torch.arange(t)),
        lambda k, x: (x.transpose(0, 1).reshape(-1, d) + k.table[:t].repeat_interleave(len(x), 0)).view(t, -1, d).transpose(0, 1),
        lambda k, x: x + k.embedding(x.argsort(1)[..., 0]),
        lambda k, x: x + k.embedding((x[..., 0] > 0).long().cumsum(1)),
        lambda k, x: x + k.embedding.weight[torch.zeros(len(x), t, dtype=torch.long)],
    ))  # fmt: skip
    return Block(f, table=weight(t + 2, d), embedding=nn.Embedding(t + 2, d)), shape


@block(2)
def recurrent(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    kind, h, first, both = (
        choose((nn.LSTM, nn.GRU, nn.RNN)),
        choose((2, 3, 4)),
        choose((True, False)),
        choose((True, False)),
    )
    layers = choose((1, 2))
    options = {
        "bias": choose((True, False)),
        "bidirectional": both,
        "num_layers": layers,
        "batch_first": first,
    }
    if kind is nn.LSTM and choose((True, False, False)):
        options["proj_size"] = h - 1
    if kind is nn.RNN:
        options["nonlinearity"] = choose(("tanh", "relu"))
    rnn = kind(d, h, **options)
    start, out = choose((None, "repeat", "expand")), options.get("proj_size", h)
    rows = (2 if both else 1) * layers

    def run(k: Any, x: Tensor) -> Tensor:
        state = None
        if start is not None:
            p = k.h0.repeat(1, len(x), 1) if start == "repeat" else k.h0.expand(-1, len(x), -1).contiguous()
            state = (p, x.new_zeros(rows, len(x), h)) if kind is nn.LSTM else p
        y = k.rnn(x if first else x.transpose(0, 1), state)[0]
        return y if first else y.transpose(0, 1)

    return Block(run, rnn=rnn, h0=weight(rows, 1, out)), (t, out * (2 if both else 1))


@block(2)
@keeping
def stepped(choose: Choose[Any], shape: Shape) -> Made:
    """A recurrence by hand, a step after the other."""
    d = shape[1]
    cell = choose((nn.GRUCell, nn.RNNCell, nn.LSTMCell, None))
    begin = choose(
        (
            lambda p, b: p.expand(b, d),
            lambda p, b: p.repeat(b, 1),
            lambda p, b: torch.zeros(b, d, dtype=p.dtype),
            lambda p, b: p.new_zeros(b, d),
        )
    )

    def run(k: Any, x: Tensor) -> Tensor:
        h = begin(k.h0, len(x))
        c, ys = torch.zeros_like(h), []
        for row in x.unbind(1):
            if cell is nn.LSTMCell:
                h, c = k.cell(row, (h, c))
            elif cell is None:
                h = torch.exp(-k.decay.exp()) * h + torch.tanh(k.mix(torch.cat([row, h], 1)))
            else:
                h = k.cell(row, h)
            ys.append(h)
        return torch.stack(ys, 1)

    parts = {"h0": weight(1, d), "decay": weight(d), "mix": nn.Linear(2 * d, d)}
    return Block(run, cell=None if cell is None else cell(d, d), **parts), shape


@block(2)
def convolved(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    groups = choose(divisors(d))
    out, size, bias = groups * choose((1, 2)), choose((1, 2, 3)), choose((True, False))
    kind = choose(("same", "causal", "transposed", "weight norm", "circular", "unfold"))
    turned = lambda f: lambda k, x: f(k, x.transpose(1, 2)).transpose(1, 2)  # noqa: E731
    if kind == "transposed":
        layer = nn.ConvTranspose1d(d, out, size, stride=2, groups=groups, bias=bias)
        return Block(turned(lambda k, x: k.a(x)), a=layer), ((t - 1) * 2 + size, out)
    if kind == "unfold":
        n = max(t - size + 1, 1)
        size = min(size, t)
        return Block(lambda k, x: k.a(x.unfold(1, size, 1).flatten(2)), a=nn.Linear(d * size, out)), (n, out)
    layer = nn.Conv1d(
        d, out, size, groups=groups, bias=bias, padding="same" if kind in ("same", "weight norm") else 0
    )
    if kind == "weight norm":
        layer = parametrizations.weight_norm(layer, dim=choose((0, 1, 2)))
    mode = "circular" if kind == "circular" and size <= t else "constant"
    pad = (0, 0) if kind in ("same", "weight norm") else (size - 1, 0)
    return Block(turned(lambda k, x: k.a(F.pad(x, pad, mode=mode) if pad[0] else x)), a=layer), (t, out)


@block(2)
@keeping
def of_tokens(choose: Choose[Any], shape: Shape) -> Made:
    t, d = shape
    make = choose((
        lambda: Block(lambda k, x: k.a(x.transpose(1, 2)).transpose(1, 2), a=choose((nn.BatchNorm1d(d), nn.InstanceNorm1d(d, affine=True) if t > 1 else nn.Identity(), nn.GroupNorm(choose(divisors(d)), d) if t > 1 else nn.Identity()))),
        lambda: nn.BatchNorm1d(t), lambda: nn.PReLU(choose((1, t))),
        lambda: Block(lambda k, x: (torch.einsum("btc,ecd->bted", x, k.e) * k.g(x).softmax(-1)[..., None]).sum(2), e=weight(3, d, d), g=nn.Linear(d, 3)),
        lambda: Block(lambda k, x: F.scaled_dot_product_attention(k.q.expand(len(x), -1, -1), x, k.v(x)), q=weight(t, d), v=nn.Linear(d, d)),
        lambda: Block(lambda k, x: F.scaled_dot_product_attention(x, k.k.expand(len(x), -1, -1), k.v.repeat(len(x), 1, 1)), k=weight(1, 3, d), v=weight(1, 3, d)),
        lambda: Block(lambda k, x: torch.fft.irfft(torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(k.f), n=t, dim=1, norm="ortho"), f=weight(t // 2 + 1, d, 2)),
        lambda: Block(lambda k, x: k.m() @ x, m=matrix(choose, t, t)),
        lambda: Block(lambda k, x: x + k.a(x.mean(1))[:, None], a=nn.Linear(d, d)),
        lambda: Block(lambda k, x: x * torch.sigmoid(k.a(x.transpose(1, 2)).transpose(1, 2)), a=nn.Conv1d(d, d, 1, groups=d)),
        lambda: Block(lambda k, x: torch.where(x.mean(-1, keepdim=True) > 0, x, k.token), token=weight(d)),
        lambda: Block(lambda k, x: torch.addmm(k.b, x.reshape(-1, d), k.w).view(x.shape), b=weight(d), w=weight(d, d)),
        lambda: Block(lambda k, x: torch.baddbmm(k.b.expand_as(x), x, k.w.expand(len(x), d, d)), b=weight(t, d), w=weight(d, d)),
        lambda: Block(lambda k, x: k.e(x.argmax(-1)) * x, e=nn.Embedding(d, d, padding_idx=choose((None, 0)))),
        lambda: Block(lambda k, x: (F.one_hot(x.argmax(-1), d).to(x) @ k.w) + x, w=weight(d, d)),
        lambda: Block(lambda k, x: torch.stack([F.linear(x[:, i], k.w[i], k.b[i]) for i in range(t)], 1), w=weight(t, d, d), b=weight(t, d)),
        lambda: Block(lambda k, x: torch.einsum("btd,tde->bte", x, k.w) + k.s, w=weight(t, d, d), s=weight(1)),
        lambda: Block(lambda k, x: torch.bmm(x.transpose(0, 1), k.w).transpose(0, 1), w=weight(t, d, d)),
        lambda: Block(lambda k, x: x[:, torch.arange(t - 1, -1, -1)] * k.g + k.a(x.detach()), g=weight(d), a=nn.Linear(d, d)),
    ))  # fmt: skip
    return make(), shape


@block(2)
@keeping
def windows(choose: Choose[Any], shape: Shape) -> Made:
    """Windows of tokens, folded into the batch."""
    t, d = shape
    n = choose(divisors(t))
    inner = same(choose, (t // n, d))
    f = choose((
        lambda k, x: k.inner(x.reshape(-1, t // n, d)).reshape(x.shape),
        lambda k, x: k.inner(x.view(-1, n, t // n, d).flatten(0, 1)).unflatten(0, (-1, n)).flatten(1, 2),
        lambda k, x: k.inner(x.reshape(-1, n, t // n, d).transpose(0, 1).reshape(-1, t // n, d)).view(n, -1, t // n, d).transpose(0, 1).reshape(x.shape),
        lambda k, x: torch.cat([k.inner(w) for w in x.chunk(n, 1)], 1),
        lambda k, x: torch.cat(k.inner(torch.cat(x.split(t // n, 1))).chunk(n), 1),
    ))  # fmt: skip
    return Block(f, inner=inner), shape
