"""Networks that need nothing but torch: one of every mechanism that people build from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from tests.zoo.networks import CLASSES, Network, cross_entropy, energy, images, labels, tokens, values


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def head(features: int) -> nn.Module:
    return nn.Linear(features, CLASSES)


def pooled(features: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(features)]


# -- Plain ---------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), head(5))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=3), nn.GroupNorm(2, 6), nn.GELU(), *pooled(6),
    )  # fmt: skip


def dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", dilation=2, padding_mode="reflect"), nn.SiLU(),
        nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding_mode="circular", padding=1),
        nn.InstanceNorm2d(4, affine=True), nn.ELU(), nn.Conv2d(4, 8, 1), nn.PixelShuffle(2),
        nn.Flatten(), nn.LazyLinear(CLASSES),
    )  # fmt: skip


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(4, 4, (1, 2, 2)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), head(4),
    )  # fmt: skip


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), nn.Tanh(),
        nn.ConvTranspose2d(6, 2, 2, dilation=2),
    )  # fmt: skip


def transposed_1d_3d() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose1d(3, 4, 3, stride=2),
        nn.ReLU(),
        nn.Unflatten(2, (3, 3, 1)),
        nn.ConvTranspose3d(4, 2, 2),
    )


def prelu() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.PReLU(6), nn.Linear(6, 6), nn.PReLU(), head(6))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down1(x)
        deep = self.up(self.down2(F.max_pool2d(skip, 2)))
        y = F.interpolate(deep, size=skip.shape[2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([skip, y], 1))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.gate = nn.Sequential(nn.Conv2d(6, 2, 1), nn.ReLU(), nn.Conv2d(2, 6, 1), nn.Sigmoid())
        self.last = head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y * self.gate(y.mean((2, 3), keepdim=True))
        return self.last(y.amax((-2, -1)))


class DepthwiseBlock(nn.Module):
    """An inverted residual, with layer scale and stochastic depth switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.wide, self.narrow = nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma = nn.Parameter(torch.full((6,), 1e-2))
        self.last = head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.narrow(F.gelu(self.wide(self.norm(y))))
        return self.last((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


# -- Sequences -----------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, last: bool = True, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 5)
        self.rnn = kind(5, 4, **options)
        width = (options.get("proj_size", 0) or 4) * (2 if options.get("bidirectional") else 1)
        self.last, self.head = last, head(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        if not self.rnn.batch_first:
            y = y.transpose(0, 1)
        out, _ = self.rnn(y)
        if not self.rnn.batch_first:
            out = out.transpose(0, 1)
        return self.head(out[:, -1]) if self.last else self.head(out).transpose(1, 2)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(3, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 4)
        self.start = nn.Parameter(torch.randn(4))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start.expand(x.shape[0], 4)
        c, g, r = torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h)
        for step in x.unbind(1):
            h, c = self.lstm(step, (h, c))
            g = self.gru(h, g)
            r = self.rnn(g, r)
        return self.head(r)


class LearnedState(nn.Module):
    """A GRU whose first state is learned and laid out over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, num_layers=2, batch_first=True)
        self.h0 = nn.Parameter(torch.randn(2, 1, 4))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x, self.h0.repeat(1, x.shape[0], 1))
        return self.head(out.mean(1))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.head = head(4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(packed)
        return self.head(h[-1])


class Seq2Seq(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.positions = nn.Parameter(torch.randn(6, 8))
        self.transformer = nn.Transformer(8, 2, 1, 1, 12, dropout=0.0, batch_first=batch_first)
        self.head = nn.Linear(8, 17)
        self.batch_first = batch_first

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        a, b = self.embed(source) + self.positions, self.embed(target) + self.positions[: target.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(b.shape[1], dtype=b.dtype)
        if not self.batch_first:
            return self.head(self.transformer(a.transpose(0, 1), b.transpose(0, 1), tgt_mask=mask)).transpose(
                0, 1
            )
        return self.head(self.transformer(a, b, tgt_mask=mask))


def encoder(**options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Classifier(nn.Module):
    """An encoder with a class token and position embeddings, as in vision transformers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.encoder = encoder(**options)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], 1) + self.positions
        return self.head(self.encoder(y)[:, 0])


class LanguageModel(nn.Module):
    """A decoder with tied embeddings; positions by ``positions``: learned, rotary, alibi or relative."""

    def __init__(self, positions: str, heads: int = 2, width: int = 8, length: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, width)
        self.kind, self.heads, self.width = positions, heads, width
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.gate, self.up, self.down = nn.Linear(width, 12), nn.Linear(width, 12), nn.Linear(12, width)
        if positions == "learned":
            self.positions = nn.Embedding(length, width)
        if positions == "relative":
            self.bias = nn.Parameter(torch.randn(2 * length - 1, heads))
        if positions == "alibi":
            self.slopes = nn.Parameter(torch.rand(heads))
        self.head = nn.Linear(width, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        y = self.embed(x)
        if self.kind == "learned":
            y = y + self.positions(torch.arange(n))
        y = y + self.attend(self.norm1(y), n)
        z = self.norm2(y)
        y = y + self.down(F.silu(self.gate(z)) * self.up(z))
        return self.head(y).transpose(1, 2)

    def attend(self, y: Tensor, n: int) -> Tensor:
        q, k, v = self.qkv(y).view(-1, n, 3, self.heads, self.width // self.heads).permute(2, 0, 3, 1, 4)
        if self.kind == "rotary":
            q, k = rotated(q), rotated(k)
        bias = torch.full((n, n), -torch.inf, dtype=q.dtype).triu(1)
        steps = torch.arange(n)
        if self.kind == "relative":
            bias = bias + self.bias[(steps[:, None] - steps) + n - 1].permute(2, 0, 1)
        if self.kind == "alibi":
            bias = bias - self.slopes[:, None, None] * (steps[:, None] - steps).abs()
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(a.transpose(1, 2).flatten(2))


def rotated(x: Tensor) -> Tensor:
    n, d = x.shape[-2:]
    angles = torch.arange(n, dtype=x.dtype)[:, None] / 10 ** (torch.arange(0, d, 2, dtype=x.dtype) / d)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack(
        [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1
    ).flatten(-2)


class TemporalConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.weight_norm(nn.Conv1d(3, 4, 3, dilation=2))
        self.conv2 = parametrizations.weight_norm(nn.Conv1d(4, 4, 3), dim=1)
        self.skip = nn.Conv1d(3, 4, 1)
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(F.pad(x, (4, 0))))
        y = F.relu(self.conv2(F.pad(y, (2, 0)))) + self.skip(x)
        return self.head(y[..., -1])


class OldWeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.weight_norm(nn.Linear(5, 6))
        self.spectral = nn.utils.spectral_norm(nn.Linear(6, 6))
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.spectral(torch.relu(self.linear(x)))))


class StateSpace(nn.Module):
    """A diagonal linear recurrence with input-dependent steps, as in Mamba."""

    def __init__(self, width: int = 4, states: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, width)
        self.log_a = nn.Parameter(torch.rand(width, states))
        self.d = nn.Parameter(torch.ones(width))
        self.project = nn.Linear(width, 2 * states)
        self.step = nn.Linear(width, width)
        self.conv = nn.Conv1d(width, width, 3, groups=width, padding=2)
        self.head = head(width)
        self.states = states

    def forward(self, x: Tensor) -> Tensor:
        u = self.embed(x)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        b, c = self.project(u).split(self.states, -1)
        dt = F.softplus(self.step(u))
        a = -torch.exp(self.log_a)
        decay = torch.exp(dt[..., None] * a)
        drive = dt[..., None] * b[:, :, None] * u[..., None]
        h = torch.zeros_like(drive[:, 0])
        ys = []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + drive[:, t]
            ys.append((h * c[:, t, None]).sum(-1))
        return self.head((torch.stack(ys, 1) + u * self.d).mean(1))


class WeightedKeyValue(nn.Module):
    """Time mixing of RWKV."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, width)
        self.mix = nn.Parameter(torch.rand(1, 1, width))
        self.decay, self.bonus = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        u = self.embed(x)
        m = u * self.mix + self.shift(u) * (1 - self.mix)
        k, v, r = self.key(m), self.value(m), torch.sigmoid(self.receptance(m))
        num, den = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
        ys = []
        for t in range(x.shape[1]):
            e = torch.exp(self.bonus + k[:, t])
            ys.append((num + e * v[:, t]) / (den + e))
            w = torch.exp(-torch.exp(self.decay))
            num, den = w * num + torch.exp(k[:, t]) * v[:, t], w * den + torch.exp(k[:, t])
        return self.head((r * torch.stack(ys, 1)).sum(1))


class Spectral(nn.Module):
    """Mixing by Fourier transforms, and a complex filter."""

    def __init__(self, width: int = 4, length: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, width)
        self.filter = nn.Parameter(torch.randn(length // 2 + 1, width, 2))
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        u = self.embed(x)
        f = torch.fft.rfft(u, dim=1) * torch.view_as_complex(self.filter)
        return self.head(torch.fft.irfft(f, n=x.shape[1], dim=1).mean(1) + torch.fft.fft2(u).real.amax(1))


class ComplexWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4, dtype=torch.complex128)
        self.scale = nn.Parameter(torch.randn(4, dtype=torch.complex128))
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.scale * self.first(x.to(torch.complex128))
        return self.head(torch.cat([z.real, z.imag], -1).tanh())


class FourierOperator(nn.Module):
    """A Fourier neural operator in one dimension: complex einsum of low modes."""

    def __init__(self, width: int = 4, modes: int = 3) -> None:
        super().__init__()
        self.lift, self.skip = nn.Conv1d(2, width, 1), nn.Conv1d(width, width, 1)
        self.weight = nn.Parameter(torch.randn(width, width, modes, dtype=torch.complex128))
        self.drop = nn.Conv1d(width, 1, 1)
        self.modes = modes

    def forward(self, x: Tensor) -> Tensor:
        u = self.lift(x)
        f = torch.fft.rfft(u)
        out = torch.zeros_like(f)
        out[:, :, : self.modes] = torch.einsum("bim,iom->bom", f[:, :, : self.modes], self.weight)
        return self.drop(F.gelu(torch.fft.irfft(out, n=x.shape[-1]) + self.skip(u)))


# -- Sets, graphs, points ------------------------------------------------------------------------------------


class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5, bias=False), nn.Linear(5, 5)
        self.head = head(5)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency.abs()
        a = a / a.sum(-1, keepdim=True)
        y = F.relu(a @ self.first(x))
        return self.head((a @ self.second(y)).mean(1))


class GraphAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4))
        self.left, self.right = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.randn(4, 1))
        self.head = head(4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = torch.matmul(x, self.w)
        e = F.leaky_relu(h @ self.left + (h @ self.right).transpose(1, 2), 0.2)
        a = torch.where(adjacency > 0, e, torch.full_like(e, -9.0)).softmax(-1)
        return self.head(torch.bmm(a, h).sum(1))


class EdgeMessages(nn.Module):
    """Messages along a fixed list of edges, gathered and added up by index."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(6, 4), nn.Linear(7, 3)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        m = F.relu(self.message(torch.cat([x[:, source], x[:, target]], -1)))
        total = torch.zeros(x.shape[0], x.shape[1], 4, dtype=x.dtype).index_add(1, target, m)
        return self.update(torch.cat([x, total], -1)).sum(1)


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten())
        self.matrix = nn.Linear(4, 9)
        self.points = nn.Sequential(nn.Conv1d(3, 6, 1), nn.BatchNorm1d(6), nn.ReLU())
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        m = self.matrix(self.transform(x)).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        return self.head(torch.max(self.points(torch.bmm(m, x)), 2)[0])


class DeepSets(nn.Module):
    """Elements folded into the batch, as ``view(B * n, f)``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        batch, n, f = x.shape
        return self.head(self.inner(x.reshape(batch * n, f)).reshape(batch, n, -1).sum(1))


class InducedSet(nn.Module):
    """Attention from learned queries, as in the Perceiver and set transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, 8))
        self.project = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(x)
        q = self.queries.unsqueeze(0).expand(x.size(0), -1, -1)
        y, _ = self.attention(q, y, y, need_weights=True)
        return self.head(y.mean(1))


class SharedQueries(nn.Module):
    """Queries that never get a batch dimension: an outer product of parameters and samples."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, 6))
        self.key, self.value = nn.Linear(3, 6), nn.Linear(3, 6)
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.matmul(self.queries, self.key(x).transpose(1, 2)) / math.sqrt(6)
        return self.head((a.softmax(-1) @ self.value(x)).flatten(2).mean(1))


class Slots(nn.Module):
    """Slot attention with a GRU cell over slots folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 3, 4))
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(3, 4)
        self.cell, self.norm = nn.GRUCell(4, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        slots = self.start.repeat(b, 1, 1)
        k, v = self.k(x), self.v(x)
        for _ in range(2):
            a = torch.einsum("bsd,bnd->bsn", self.q(self.norm(slots)), k).softmax(1)
            u = torch.einsum("bsn,bnd->bsd", a / a.sum(-1, keepdim=True), v)
            slots = self.cell(u.reshape(-1, 4), slots.reshape(-1, 4)).view(b, -1, 4)
        return slots


# -- Weights that are computed -------------------------------------------------------------------------------


class LoRA(nn.Module):
    def __init__(self, merged: bool) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5)
        self.a, self.b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))
        self.head, self.merged = head(5), merged

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            y = F.linear(x, self.base.weight + 0.5 * self.b @ self.a, self.base.bias)
        else:
            y = self.base(x) + 0.5 * F.linear(F.linear(x, self.a), self.b)
        return self.head(F.gelu(y))


class HyperNetwork(nn.Module):
    """Weights of a layer come from an embedding that no sample enters."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(3))
        self.make = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 20))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(x, self.make(self.code).view(4, 5))))


class DynamicWeights(nn.Module):
    """Each sample makes weights for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(5, 20)
        self.mix = nn.Linear(5, 3)
        self.bank = nn.Parameter(torch.randn(3, 4, 3, 3, 3))
        self.head = head(4)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        w = self.make(x).view(-1, 4, 5)
        y = torch.einsum("boi,bi->bo", w, x)
        kernels = torch.einsum("bk,koihw->boihw", self.mix(x).softmax(-1), self.bank)
        b = image.shape[0]
        z = F.conv2d(image.reshape(1, b * 3, *image.shape[2:]), kernels.reshape(b * 4, 3, 3, 3), groups=b)
        return self.head(y + z.view(b, 4, -1).mean(-1))


class FiLM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4, affine=False)
        self.condition = nn.Embedding(17, 8)
        self.head = head(4)

    def forward(self, image: Tensor, token: Tensor) -> Tensor:
        scale, shift = self.condition(token[:, 0])[:, :, None, None].chunk(2, 1)
        return self.head(F.relu(self.norm(self.conv(image)) * (1 + scale) + shift).mean((2, 3)))


class SoftExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 3)
        self.experts = nn.ModuleList(nn.Linear(5, 4) for _ in range(3))
        self.stacked = nn.Parameter(torch.randn(3, 4, 4))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        g = self.gate(x).softmax(-1)
        y = torch.stack([e(x) for e in self.experts], 1)
        z = torch.einsum("bei,eio->beo", torch.relu(y), self.stacked)
        return self.head((g.unsqueeze(-1) * z).sum(1))


class RoutedExperts(nn.Module):
    """Each sample goes to the expert that its gate picks, by boolean masks."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 3)
        self.experts = nn.ModuleList(nn.Linear(5, 4) for _ in range(3))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        p, best = self.gate(x).softmax(-1).max(-1)
        y = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        for i, expert in enumerate(self.experts):
            chosen = best == i
            if chosen.any():
                y[chosen] = expert(x[chosen]) * p[chosen, None]
        return self.head(y)


class Capsules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Conv2d(3, 8, 3, stride=2)
        self.weight = nn.Parameter(torch.randn(3, 18, 4, 4))
        self.bias = nn.Parameter(torch.zeros(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(x).view(x.shape[0], 2, 4, -1).permute(0, 1, 3, 2).reshape(x.shape[0], -1, 4)
        votes = torch.einsum("oide,bie->boid", self.weight, u)
        logits = torch.zeros(x.shape[0], 3, votes.shape[2], dtype=x.dtype)
        for _ in range(2):
            s = torch.einsum("boi,boid->bod", logits.softmax(1), votes) + self.bias
            n = s.square().sum(-1, keepdim=True)
            v = n / (1 + n) * s / (n + 1e-8).sqrt()
            logits = logits + torch.einsum("bod,boid->boi", v, votes)
        return v.norm(dim=-1)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.head = nn.Bilinear(4, 3, 5), head(5)
        self.form = nn.Parameter(torch.randn(4, 4))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.tanh(self.pair(a, b))) * (a @ self.form * a).sum(-1, keepdim=True)


class Bags(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(17, 4, mode=mode), head(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bag(x))


class PaddedEmbedding(nn.Module):
    """Padding, and a head that is a slice of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 4, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.embed(x).mean(1), self.embed.weight[:CLASSES])


class MLPMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4))
        self.channels = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(self.norm1(y).mT).mT
        y = y + self.channels(self.norm2(y))
        return self.head(y.mean(1))


class GatedMLP(nn.Module):
    """Spatial gating with a bare matrix over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 8), nn.LayerNorm(4)
        self.spatial, self.bias = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.ones(5))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.first(x)).chunk(2, -1)
        v = torch.einsum("mn,bnd->bmd", self.spatial, self.norm(v)) + self.bias[:, None]
        return self.head((u * v).mean(1))


class KAN(nn.Module):
    """Edges with radial basis functions."""

    def __init__(self, inputs: int = 4, outputs: int = 3, grid: int = 5) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, grid))
        self.spline = nn.Parameter(torch.randn(outputs, inputs, grid))
        self.base = nn.Parameter(torch.randn(outputs, inputs))
        self.width = nn.Parameter(torch.ones(inputs))

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.exp(-(((x * self.width)[..., None] - self.grid) ** 2))
        return F.linear(F.silu(x), self.base) + torch.einsum("big,oig->bo", basis, self.spline)


class DeepEquilibrium(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inject, self.step, self.norm = nn.Linear(5, 6), nn.Linear(6, 6, bias=False), nn.LayerNorm(6)
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        z, u = torch.zeros(x.shape[0], 6, dtype=x.dtype), self.inject(x)
        for _ in range(5):
            z = self.norm(torch.tanh(self.step(z) + u))
        return self.head(z)


class NeuralODE(nn.Module):
    """Runge-Kutta steps with a time input and a learned start."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
        self.horizon = nn.Parameter(torch.tensor(1.0))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        def f(t: Tensor, y: Tensor) -> Tensor:
            return self.field(torch.cat([y, t.expand(y.shape[0], 1)], 1))

        h = self.horizon / 3
        for i in range(3):
            t = i * h
            k1 = f(t, x)
            k2 = f(t + h / 2, x + h / 2 * k1)
            x = x + h * k2
        return self.head(x)


def quantised() -> nn.Module:
    """Prepared for training with quantised weights: fake quantisers in eval mode."""
    from torch.ao.quantization import disable_observer, get_default_qat_qconfig, prepare_qat

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES))
    model.qconfig = get_default_qat_qconfig("fbgemm")
    model.train()
    prepared = prepare_qat(model)
    prepared(torch.randn(4, 3, 8, 8))
    prepared.apply(disable_observer)
    return prepared


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.head = (
            nn.Linear(5, 6),
            nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            head(6),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=False))


def pruned() -> nn.Module:
    model = mlp()
    prune.random_unstructured(model[1], "weight", 0.4)
    prune.l1_unstructured(model[1], "bias", 0.3)
    prune.ln_structured(model[3], "weight", 0.3, n=2, dim=0)
    return model


def orthogonal() -> nn.Module:
    return nn.Sequential(
        parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh(),
        parametrizations.orthogonal(nn.Linear(6, 4), orthogonal_map="householder"), nn.Tanh(),
        parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"), head(4),
    )  # fmt: skip


def spectral() -> nn.Module:
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.LeakyReLU(0.1), nn.Flatten(),
        parametrizations.spectral_norm(nn.Linear(144, 5)), nn.ReLU(), head(5),
    )  # fmt: skip


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


class Standardised(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
        return (w - mean) / (var + 1e-5).sqrt()


class Ternary(nn.Module):
    """Straight-through rounding."""

    def forward(self, w: Tensor) -> Tensor:
        q = w.sign() * (w.abs() > 0.1) * w.abs().mean()
        return w + (q - w).detach()


def parametrised(kind: type[nn.Module], layer: Callable[[], nn.Module], *rest: nn.Module) -> nn.Module:
    first = layer()
    parametrize.register_parametrization(first, "weight", kind())
    return nn.Sequential(first, *rest)


class WeightStandardised(nn.Module):
    """Weights that are normalised in forward, shared by two convolutions of different strides."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        w = F.layer_norm(self.weight, self.weight.shape[1:]) * self.gain
        return self.head(
            F.conv2d(x, w, padding=1).relu().mean((2, 3)) + F.conv2d(x, w, stride=2).mean((2, 3))
        )


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder; the same layer applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.shared = nn.Linear(6, 4), nn.Linear(4, 4)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.shared(torch.tanh(self.shared(self.encode(x)))))
        return z @ self.encode.weight + self.bias


class Siamese(nn.Module):
    """Both halves of a pair through one trunk, concatenated along the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
        )
        self.head = head(4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.trunk(torch.cat([a, b])).chunk(2)
        return self.head((x - y).abs())


class MultiCrop(nn.Module):
    """Crops folded into the batch in front: ``[crops * B, ...]``."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        crops = torch.cat([x[:, :, :2, :2], x[:, :, 2:, 2:], x[:, :, :2, 2:]]).flatten(1)
        y = self.trunk(crops) * self.scale
        return self.head(y.view(3, b, 4).mean(0))


class Windows(nn.Module):
    """Attention in windows folded into the batch behind it, with relative position bias and a shift."""

    def __init__(self, size: int = 2, width: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = (
            nn.Conv2d(3, width, 2, 2),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads))
        self.head = head(width)
        grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        offsets = (grid[:, :, None] - grid[:, None]) + size - 1
        self.register_buffer("index", offsets[0] * (2 * size - 1) + offsets[1])
        self.size, self.heads = size, heads

    def forward(self, x: Tensor) -> Tensor:
        s = self.size
        y = self.stem(x).permute(0, 2, 3, 1).roll((-1, -1), (1, 2))
        b, h, w, c = y.shape
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        q, k, v = (
            self.qkv(y).reshape(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        a = q @ k.transpose(-2, -1) + self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
        y = self.out((a.softmax(-1) @ v).transpose(1, 2).reshape(-1, s * s, c))
        y = (
            y.view(b, h // s, w // s, s, s, c)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, h, w, c)
            .roll((1, 1), (1, 2))
        )
        return self.head(y.mean((1, 2)))


class AxialAttention(nn.Module):
    """Rows, then columns, folded into the batch."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.rows = nn.MultiheadAttention(width, 2, batch_first=True)
        self.columns = nn.MultiheadAttention(width, 2)
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        b, c, h, w = y.shape
        r = y.permute(0, 2, 3, 1).reshape(b * h, w, c)
        r = self.rows(r, r, r, need_weights=False)[0].view(b, h, w, c)
        q = r.permute(1, 0, 2, 3).reshape(h, b * w, c)
        q = self.columns(q, q, q)[0].view(h, b, w, c)
        return self.head(q.mean((0, 2)))


class MaskedAutoencoder(nn.Module):
    """A mask token in place of patches that each sample chooses."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(3, width), nn.Parameter(torch.randn(width))
        self.encoder = nn.TransformerEncoderLayer(width, 2, 8, 0.0, batch_first=True, norm_first=True)
        self.decode = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        keep = x.sum(-1).argsort(1)[:, :3]
        y = self.embed(x)
        kept = torch.gather(y, 1, keep[..., None].expand(-1, -1, y.shape[-1]))
        z = self.encoder(kept)
        full = self.token.expand(*y.shape).scatter(1, keep[..., None].expand_as(z), z)
        return self.decode(full)


class Codebook(nn.Module):
    """Vector quantisation: distances to a codebook, straight-through, and its loss as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 3), nn.Linear(3, 6)
        self.codes = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encode(x)
        d = (z[:, None] - self.codes[None]).square().sum(-1)
        nearest = self.codes[d.argmin(1)]
        soft = (-torch.cdist(z, self.codes)).softmax(-1) @ self.codes
        return self.decode(z + (nearest - z).detach() + soft), (nearest - z.detach()).square()


class Energy(nn.Module):
    """Forces: the derivative of an energy with respect to the inputs, inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.field(x).sum(), x, create_graph=True)[0]


class Flow(nn.Module):
    """An affine coupling flow with a log determinant as its second output."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4))
        self.log_scale, self.shift = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
        self.matrix = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (x + self.shift) * torch.exp(self.log_scale)
        x = x @ self.matrix
        a, b = x.chunk(2, -1)
        s, t = self.net(a).chunk(2, -1)
        logdet = s.sum(-1) + self.log_scale.sum() + torch.linalg.slogdet(self.matrix)[1]
        return torch.cat([a, b * s.exp() + t], -1), logdet


class GaussianProcess(nn.Module):
    """Features against learned inducing points, with a Cholesky factor of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.mean = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))
        self.length = nn.Parameter(torch.zeros(3))

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a / self.length.exp(), b / self.length.exp()
        return torch.exp(-0.5 * (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.kernel(self.points, self.points) + 0.1 * torch.eye(4, dtype=x.dtype)
        factor = torch.linalg.cholesky(inner)
        weights = torch.cholesky_solve(self.mean[:, None], factor)[:, 0]
        return (self.kernel(x[:, None], self.points)[:, 0] @ weights).unsqueeze(-1)


class InPlace(nn.Module):
    """Writes into tensors, of samples and of computed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(5, 6), nn.Parameter(torch.ones(6))
        self.table = nn.Parameter(torch.randn(4, 6))
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y += self.scale
        y.mul_(self.scale).clamp_(-2, 2)
        y[:, 0] = self.table[0, 0]
        y[:, 1:3] += self.table[1, 1:3]
        out = torch.empty(x.shape[0], 2, 6, dtype=x.dtype)
        out[:, 0] = y
        out[:, 1] = self.table[2]
        return self.head(out.prod(1))


class Padding(nn.Module):
    """A learned token put in front with cat, stack and pad; another one fills what a mask selects."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.other = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(()))
        self.embed, self.head = nn.Linear(3, 4), head(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        first = self.token.view(1, 1, -1).expand(y.shape[0], 1, -1)
        y = torch.cat((first, y), dim=1)
        y = torch.where(y > 1, self.other, y)
        stacked = torch.stack([y, self.token.expand_as(y)], 2)
        return self.head(stacked.amax((1, 2)))


class Einsums(nn.Module):
    """Multi-head attention in einsums with three-dimensional weights."""

    def __init__(self, width: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(heads, width, 3)) for _ in range(3))
        self.o = nn.Parameter(torch.randn(heads, 3, width))
        self.embed, self.head = nn.Embedding(17, width), head(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        q, k, v = (torch.einsum("bnd,hde->bhne", y, w) for w in (self.q, self.k, self.v))
        a = torch.einsum("bhne,bhme->bhnm", q, k).softmax(-1)
        return self.head(torch.einsum("bhnm,bhme,hed->bnd", a, v, self.o).mean(1))


class SamplesLast(nn.Module):
    """Works on ``[features, B]``, as in control and physics."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6, 1))
        self.c = nn.Parameter(torch.randn(CLASSES, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.a @ x.T + self.b)
        return torch.mm(self.c, y).t()


class Mixtures(nn.Module):
    """A mixture density: log-sum-exp of squares, as one number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.means = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.randn(4, 3))
        self.factors = nn.Parameter(torch.randn(4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        centred = x[:, None] - self.means
        whitened = torch.matmul(self.factors, centred.unsqueeze(-1)).squeeze(-1)
        log = self.logits.log_softmax(0) - 0.5 * whitened.pow(2).sum(-1) + self.factors.det().abs().log()
        return torch.logsumexp(log, 1, keepdim=True)


class SuperNet(nn.Module):
    """Choices weighted by softmax of bare parameters, as in DARTS; slices of a shared kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.alphas = nn.Parameter(torch.randn(3))
        self.kernel = nn.Parameter(torch.randn(4, 3, 5, 5))
        self.bias = nn.Parameter(torch.zeros(8))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        w = self.alphas.softmax(0)
        y = w[0] * F.conv2d(x, self.kernel, self.bias[:4], padding=2)
        y = y + w[1] * F.conv2d(x, self.kernel[:, :, 1:4, 1:4], self.bias[2:6], padding=1)
        y = y + w[2] * F.conv2d(x, self.kernel.narrow(2, 2, 1)[..., 2:3])
        return self.head(F.relu(y).mean((2, 3)))


class Unused(nn.Module):
    """Parameters that reach nothing, that are frozen, and of a branch of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.frozen = nn.Linear(3, 3), nn.Linear(5, 6)
        self.frozen.requires_grad_(False)
        self.used, self.head = nn.Linear(6, 6), head(6)
        self.empty = nn.Parameter(torch.zeros(0, 6))

    def forward(self, x: Tensor) -> Tensor:
        _ = self.idle(torch.ones(3, dtype=x.dtype))
        return self.head(self.used(self.frozen(x)).relu())


class LocallyConnected(nn.Module):
    """Unfolded patches times weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 9, 12))
        self.bias = nn.Parameter(torch.zeros(4, 9))
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=2)[:, :, :9]
        y = (patches.transpose(1, 2).unsqueeze(1) * self.weight).sum(-1) + self.bias
        return self.head(F.relu(y).mean(-1))


class Involution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.make, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 18, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        b, c, h, w = y.shape
        k = self.make(y).view(b, 2, 1, 9, h, w)
        patches = F.unfold(y, 3, padding=1).view(b, 2, c // 2, 9, h, w)
        return self.head((k * patches).sum(3).view(b, c, h, w).mean((2, 3)))


class Deformable(nn.Module):
    """A grid that each sample shifts: a spatial transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Linear(192, 6)
        self.conv, self.head = nn.Conv2d(3, 4, 3), head(4)

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.locate(x.flatten(1)).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.head(self.conv(F.grid_sample(x, grid, align_corners=False)).mean((2, 3)))


class SharedCanvas(nn.Module):
    """A learned canvas that every sample looks at through its own grid."""

    def __init__(self) -> None:
        super().__init__()
        self.canvas = nn.Parameter(torch.randn(1, 2, 5, 5))
        self.locate, self.head = nn.Linear(5, 8), head(8)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.locate(x).view(-1, 2, 2, 2).tanh()
        seen = F.grid_sample(self.canvas.expand(x.shape[0], -1, -1, -1), grid, align_corners=True)
        return self.head(seen.flatten(1))


class NeuralField(nn.Module):
    """Random Fourier features of coordinates, SIREN layers, and a feature plane looked up bilinearly."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 4))
        self.plane = nn.Parameter(torch.randn(3, 6, 6))
        self.first, self.last = nn.Linear(11, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        phases = x @ self.frequencies
        looked = F.grid_sample(
            self.plane[None].expand(x.shape[0], -1, -1, -1), x.tanh()[:, :, None], align_corners=True
        )
        y = torch.cat([phases.sin(), phases.cos(), looked[..., 0].transpose(1, 2)], -1)
        return self.last(torch.sin(3 * self.first(y)))


class Tree(nn.Module):
    """A soft decision tree: products of sigmoids of one matrix, leaves of another."""

    def __init__(self) -> None:
        super().__init__()
        self.split = nn.Linear(5, 3)
        self.leaves = nn.Parameter(torch.randn(4, CLASSES))
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.split(x) * self.temperature)
        a, b, c = p.unbind(1)
        paths = torch.stack([a * b, a * (1 - b), (1 - a) * c, (1 - a) * (1 - c)], 1)
        return paths @ self.leaves


class FieldFactors(nn.Module):
    """A factorisation machine over fields, with offsets into one table, and cross layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(20, 3), nn.Embedding(20, 1)
        self.bias = nn.Parameter(torch.zeros(1))
        self.cross = nn.ParameterList(nn.Parameter(torch.randn(12)) for _ in range(2))
        self.register_buffer("offsets", torch.tensor([0, 5, 10, 15]))
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x % 5 + self.offsets
        e = self.table(x)
        pairs = 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(1, keepdim=True)
        x0 = c = e.flatten(1)
        for w in self.cross:
            c = x0 * (c @ w).unsqueeze(1) + c
        return self.linear(x).sum(1) + self.bias + pairs + self.head(c)


class Functional(nn.Module):
    """One functional call each of what takes weights and has no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 4))
        self.b = nn.Parameter(torch.randn(4))
        self.v = nn.Parameter(torch.randn(4))
        self.m = nn.Parameter(torch.randn(6, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.b, x, self.w)
        z = torch.mv(y, self.v).unsqueeze(1)
        n = F.normalize(y, dim=1) * F.normalize(self.v, dim=0)
        t = torch.tensordot(y, self.m, dims=([1], [1])).flatten(1)
        o = torch.lerp(y, self.v, torch.tensor(0.3, dtype=x.dtype))
        c = torch.addcmul(y, self.v, self.b, value=0.5)
        k = F.cosine_similarity(y, self.v[None], dim=1)[:, None]
        d = torch.inner(y, self.w)
        return torch.cat([y, z, n, t, o, c, k, d, y.pow(2) ** self.v.sigmoid(), torch.maximum(y, self.v)], 1)


class TokensAndChannels(nn.Module):
    """As many tokens, channels and heads as samples, moved about."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(n, n)), nn.Parameter(torch.randn(n, n))
        self.scale = nn.Parameter(torch.randn(n, 1))
        self.bias = nn.Parameter(torch.randn(n))
        self.linear = nn.Linear(n, n)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.transpose(0, 1)) + self.bias
        y = self.a @ y.transpose(0, 1) * self.scale
        y = torch.matmul(y.permute(2, 0, 1), self.b)
        return y.permute(1, 2, 0) + self.bias[:, None]


def adjacency(batch: int) -> tuple[Tensor, Tensor]:
    return values(5, 3)(batch), values(5, 5)(batch)


def lengths(batch: int) -> tuple[Tensor, Tensor]:
    return values(5, 3)(batch), torch.arange(batch) % 4 + 2


def pairs(batch: int) -> tuple[Tensor, Tensor]:
    return values(4)(batch), values(3)(batch)


def networks() -> list[Network]:
    """All of them."""
    image, row, text = images(8), values(5), tokens()

    def classes(
        name: str, family: str, build: Callable[[], nn.Module], inputs: Any, **options: Any
    ) -> Network:
        return Network(name, family, build, inputs, labels, options.pop("loss", cross_entropy), **options)

    return [
        classes("mlp", "mlp", mlp, values(3, 4)),
        classes("mlp_default_loss", "mlp", mlp, values(3, 4), loss=None),
        classes("convolutional", "cnn", convolutional, image),
        classes("convolutional_train", "cnn", convolutional, image, train=True),
        classes("dilated", "cnn", lambda: _lazy(dilated(), image(2)), image),
        classes("volumes", "cnn_3d", volumes, images(6, 2, 4), batches=(4, 2)),
        Network("transposed", "transposed", transposed, image),
        Network("transposed_1d_3d", "transposed", transposed_1d_3d, values(3, 4)),
        classes("prelu", "mlp", prelu, row),
        Network("unet", "unet", UNet, image, batches=(4, 8)),
        classes("squeeze_excite", "squeeze_excite", SqueezeExcite, image),
        classes("depthwise", "convnext", DepthwiseBlock, images(16), batches=(4, 6)),
        classes("lstm", "rnn", lambda: Recurrent(nn.LSTM, batch_first=True), text),
        classes("lstm_time_first", "rnn", lambda: Recurrent(nn.LSTM, num_layers=2), text),
        classes("gru", "rnn", lambda: Recurrent(nn.GRU, batch_first=True, num_layers=2), text),
        classes("rnn_relu", "rnn", lambda: Recurrent(nn.RNN, nonlinearity="relu"), text),
        classes("lstm_projected", "rnn", lambda: Recurrent(nn.LSTM, proj_size=2), text),
        classes("lstm_train", "rnn", lambda: Recurrent(nn.LSTM, batch_first=True), text, train=True),
        Network(
            "bilstm_tagger",
            "rnn",
            lambda: Recurrent(nn.LSTM, last=False, bidirectional=True, batch_first=True),
            text,
        ),
        classes("cells", "rnn", Cells, values(5, 3), batches=(4, 5)),
        classes("learned_state", "rnn", LearnedState, values(5, 3), batches=(4, 2)),
        classes("packed", "rnn", Packed, lengths, batches=(4, 5)),
        Network(
            "seq2seq", "transformer", lambda: Seq2Seq(True), lambda b: (tokens()(b), tokens(length=4)(b))
        ),
        Network(
            "seq2seq_time_first",
            "transformer",
            lambda: Seq2Seq(False),
            lambda b: (tokens()(b), tokens(length=4)(b)),
        ),
        classes("classifier", "transformer", Classifier, image, batches=(4, 5)),
        classes("classifier_train", "transformer", Classifier, image, train=True, batches=(4, 5)),
        classes("classifier_prenorm", "transformer", lambda: Classifier(norm_first=True, bias=False), image),
        *(
            Network(f"language_{p}", "decoder", lambda p=p: LanguageModel(p), text)
            for p in ("learned", "rotary", "alibi", "relative")
        ),
        classes("temporal_convolution", "tcn", TemporalConvolution, values(3, 7), batches=(4, 7)),
        classes("old_weight_norm", "weight_norm", OldWeightNorm, row),
        classes("old_weight_norm_train", "weight_norm", OldWeightNorm, row, train=True),
        classes("state_space", "state_space", StateSpace, text),
        classes("weighted_key_value", "rwkv", WeightedKeyValue, text),
        classes("spectral_mixing", "fourier", Spectral, text),
        classes("complex_weights", "complex", ComplexWeights, row),
        Network("fourier_operator", "fourier", FourierOperator, values(2, 8), batches=(4, 8)),
        classes("graph_convolution", "graph", GraphConvolution, adjacency, batches=(4, 5)),
        classes("graph_attention", "graph", GraphAttention, adjacency, batches=(4, 5)),
        classes("edge_messages", "graph", EdgeMessages, values(5, 3), batches=(4, 5)),
        classes("point_net", "point_net", PointNet, values(3, 7), batches=(4, 7)),
        classes("deep_sets", "sets", DeepSets, values(6, 3)),
        classes("induced_set", "perceiver", InducedSet, values(6, 3)),
        classes("shared_queries", "perceiver", SharedQueries, values(6, 3)),
        Network("slots", "slots", Slots, values(6, 3)),
        classes("lora", "lora", lambda: LoRA(False), values(6)),
        classes("lora_merged", "lora", lambda: LoRA(True), values(6)),
        classes(
            "lora_tokens",
            "lora",
            lambda: nn.Sequential(LoRA(True), Lambda(lambda y: y.mean(1))),
            values(4, 6),
        ),
        classes("hypernetwork", "hypernetwork", HyperNetwork, row),
        classes("dynamic_weights", "dynamic", DynamicWeights, lambda b: (row(b), image(b))),
        classes("film", "film", FiLM, lambda b: (image(b), text(b))),
        classes("soft_experts", "experts", SoftExperts, row, batches=(4, 3)),
        classes("routed_experts", "experts", RoutedExperts, row),
        Network("capsules", "capsules", Capsules, image, batches=(4, 3)),
        classes("bilinear", "bilinear", Bilinear, pairs, batches=(4, 3)),
        *(classes(f"bag_{m}", "bag", lambda m=m: Bags(m), text) for m in ("sum", "mean", "max")),
        classes("padded_embedding", "embedding", PaddedEmbedding, text),
        classes("mlp_mixer", "mixer", MLPMixer, image),
        classes("gated_mlp", "mixer", GatedMLP, values(5, 3), batches=(4, 5)),
        Network("kan", "kan", KAN, values(4), batches=(4, 5)),
        classes("deep_equilibrium", "implicit", DeepEquilibrium, row),
        classes("neural_ode", "implicit", NeuralODE, values(4)),
        classes(
            "quantised",
            "quantised",
            quantised,
            lambda b: image(b).float(),
            tolerance=1e-4,
            double=False,
            perturb=False,
        ),
        classes("checkpointed", "checkpointed", Checkpointed, row),
        classes("pruned", "pruned", pruned, values(3, 4)),
        classes("orthogonal", "parametrised", orthogonal, values(6)),
        classes("spectral_norm", "parametrised", spectral, image),
        classes("spectral_norm_train", "parametrised", spectral, image, train=True),
        classes(
            "symmetric",
            "parametrised",
            lambda: parametrised(Symmetric, lambda: nn.Linear(6, 6), head(6)),
            values(6),
        ),
        classes(
            "standardised",
            "parametrised",
            lambda: parametrised(Standardised, lambda: nn.Conv2d(3, 4, 3), nn.ReLU(), *pooled(4)),
            image,
        ),
        classes(
            "ternary",
            "parametrised",
            lambda: parametrised(Ternary, lambda: nn.Linear(6, 6), nn.ReLU(), head(6)),
            values(6),
        ),
        classes("weight_standardised", "parametrised", WeightStandardised, image),
        Network("tied", "tied", Tied, values(6)),
        classes("siamese", "siamese", Siamese, lambda b: (image(b), image(b).flip(2))),
        classes("multi_crop", "folded", MultiCrop, images(4), batches=(4, 3)),
        classes("windows", "windows", Windows, image),
        classes("axial_attention", "windows", AxialAttention, images(4), batches=(4, 8)),
        Network("masked_autoencoder", "masked", MaskedAutoencoder, values(6, 3)),
        Network("codebook", "codebook", Codebook, values(6), batches=(4, 5)),
        Network("forces", "forces", Energy, values(4)),
        Network("flow", "flow", Flow, values(4)),
        Network("gaussian_process", "gaussian_process", GaussianProcess, values(3), batches=(5, 4)),
        classes("in_place", "in_place", InPlace, row),
        classes("padding", "tokens", Padding, values(6, 3)),
        classes("einsums", "einsum", Einsums, text),
        classes("samples_last", "layout", SamplesLast, row, batches=(4, 5, 6)),
        Network("mixtures", "mixtures", Mixtures, values(3), batches=(4, 3)),
        classes("supernet", "supernet", SuperNet, image, batches=(4, 3)),
        classes("unused", "unused", Unused, row),
        classes("locally_connected", "local", LocallyConnected, image, batches=(4, 9)),
        classes("involution", "local", Involution, image),
        classes("deformable", "grid", Deformable, image),
        classes("shared_canvas", "grid", SharedCanvas, row, batches=(4, 5)),
        Network("neural_field", "neural_field", NeuralField, values(6, 2)),
        classes("tree", "tree", Tree, row),
        Network("field_factors", "factors", FieldFactors, tokens(5, 4)),
        Network("functional", "functional", Functional, row, batches=(4, 5, 6)),
        Network("tokens_and_channels", "layout", TokensAndChannels, values(4, 4), batches=(4, 5)),
    ]


def _lazy(model: nn.Module, x: Tensor) -> nn.Module:
    """Materialise lazy layers."""
    model.double()(x)
    return model


__all__ = ["energy", "networks"]
