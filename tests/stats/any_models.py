"""Small networks whose parameters meet samples in every way that people write, with inputs for a batch
size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

CLASSES = 3
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {}


def model(name: str, make: Callable[[int], Any]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Add a network under a name, with what makes B inputs."""

    def added(kind: type[nn.Module]) -> type[nn.Module]:
        MODELS[name] = kind, make
        return kind

    return added


def features(batch: int) -> Tensor:
    return torch.randn(batch, 8, dtype=torch.float64)


def tokens(batch: int) -> Tensor:
    return torch.randn(batch, 6, 8, dtype=torch.float64)


def pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 8, dtype=torch.float64)


def clips(batch: int) -> Tensor:
    return torch.randn(batch, 2, 5, 6, 6, dtype=torch.float64)


def words(batch: int) -> Tensor:
    return torch.randint(0, 11, (batch, 6))


class Headed(nn.Module):
    """Something, then the mean over positions, then a linear layer."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.make()
        self.head = nn.Linear(self.width, CLASSES)

    def make(self) -> None:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.body(x))
        return self.head(x.flatten(1, -2).mean(1) if x.dim() > 2 else x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.5)


@model("weight norm", tokens)
class WeightNorm(Headed):
    def make(self) -> None:
        self.a = parametrizations.weight_norm(nn.Linear(8, 8))

    def body(self, x: Tensor) -> Tensor:
        return self.a(x)


@model("weight norm of a convolution", pictures)
class WeightNormConv(Headed):
    def make(self) -> None:
        self.a = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))

    def body(self, x: Tensor) -> Tensor:
        return self.a(x).flatten(2).transpose(1, 2)


@model("spectral norm", tokens)
class SpectralNorm(Headed):
    def make(self) -> None:
        self.a = parametrizations.spectral_norm(nn.Linear(8, 8))

    def body(self, x: Tensor) -> Tensor:
        return self.a(x)


@model("orthogonal", tokens)
class Orthogonal(Headed):
    def make(self) -> None:
        self.a = parametrizations.orthogonal(nn.Linear(8, 8))

    def body(self, x: Tensor) -> Tensor:
        return self.a(x)


@model("pruned", tokens)
class Pruned(Headed):
    def make(self) -> None:
        self.a = nn.Linear(8, 8).double()
        prune.l1_unstructured(self.a, "weight", amount=0.4)

    def body(self, x: Tensor) -> Tensor:
        return self.a(x)


@model("low-rank adapter", tokens)
class Adapter(Headed):
    def make(self) -> None:
        self.base = nn.Linear(8, 8)
        self.down, self.up = parameter(2, 8), parameter(8, 2)

    def body(self, x: Tensor) -> Tensor:
        return (
            F.linear(x, self.base.weight + self.up @ self.down, self.base.bias)
            + (x @ self.down.T) @ self.up.T
        )


@model("tied and transposed", tokens)
class Tied(Headed):
    def make(self) -> None:
        self.w = parameter(8, 5)

    def body(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x @ self.w) @ self.w.t()


@model("slices of one weight", tokens)
class Sliced(Headed):
    def make(self) -> None:
        self.w, self.b = parameter(24, 8), parameter(24)

    def body(self, x: Tensor) -> Tensor:
        q, k, v = self.w.chunk(3)
        b = self.b.view(3, 8)
        scores = F.linear(x, q, b[0]) @ F.linear(x, k, b[1]).mT
        return scores.softmax(-1) @ F.linear(x, v, self.b[16:])


@model("einsum", tokens)
class Einsum(Headed):
    def make(self) -> None:
        self.w, self.heads = parameter(8, 8), parameter(2, 4, 4)

    def body(self, x: Tensor) -> Tensor:
        x = torch.einsum("btc,cd->btd", x, self.w)
        return torch.einsum("bthc,hcd->bthd", x.unflatten(2, (2, 4)), self.heads).flatten(2)


@model("addmm", tokens)
class Addmm(Headed):
    def make(self) -> None:
        self.w, self.b = parameter(8, 8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        return torch.addmm(self.b, x.reshape(-1, 8), self.w).view(x.shape)


@model("class token and positions", tokens)
class ClassToken(Headed):
    def make(self) -> None:
        self.token, self.positions, self.scale = parameter(1, 1, 8), parameter(1, 7, 8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return x + self.scale * torch.tanh(x)


@model("repeated token", tokens)
class RepeatedToken(Headed):
    def make(self) -> None:
        self.token = parameter(2, 8)

    def body(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.repeat(len(x), 2, 1), x], 1)


@model("positions looked up", words)
class Positions(Headed):
    def make(self) -> None:
        self.table, self.positions = nn.Embedding(11, 8, padding_idx=0), nn.Embedding(9, 8)

    def body(self, x: Tensor) -> Tensor:
        return self.table(x) + self.positions(torch.arange(x.shape[1]))


@model("kinds looked up", words)
class Kinds(Headed):
    def make(self) -> None:
        self.table, self.kinds = nn.Embedding(11, 8), nn.Embedding(2, 8)

    def body(self, x: Tensor) -> Tensor:
        return self.table(x) * self.kinds(torch.zeros_like(x)) + self.kinds.weight[1]


@model("root mean square by hand", tokens)
class RootMeanSquare(Headed):
    def make(self) -> None:
        self.gain = parameter(8)

    def body(self, x: Tensor) -> Tensor:
        return self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@model("relative positions", tokens)
class RelativePositions(Headed):
    def make(self) -> None:
        self.qkv, self.table = nn.Linear(8, 24), parameter(11, 2)
        index = torch.arange(6)[:, None] - torch.arange(6)[None] + 5
        self.register_buffer("index", index)

    def body(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(-1, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(6, 6, 2).permute(2, 0, 1)
        return ((q @ k.mT + bias.unsqueeze(0)).softmax(-1) @ v).transpose(1, 2).flatten(2)


@model("windows folded into the batch", pictures)
class Windows(Headed):
    def make(self) -> None:
        self.embed, self.norm, self.mix, self.table = (
            nn.Conv2d(3, 8, 1),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            parameter(16, 8),
        )

    def body(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        b = len(x)
        x = x.view(b, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
        x = self.mix(self.norm(x) + self.table) * torch.tanh(x)
        return x.view(b, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(b, 64, 8)


@model("steps folded before the batch", tokens)
class StepsFirst(Headed):
    def make(self) -> None:
        self.mix, self.norm, self.shift = nn.Linear(8, 8), nn.BatchNorm1d(8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x.transpose(0, 1).reshape(-1, 8))) + self.shift
        return y.view(6, -1, 8).transpose(0, 1)


@model("frames folded, convolved", clips)
class Frames(Headed):
    def make(self) -> None:
        self.conv, self.norm, self.late = nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.Conv1d(8, 8, 3)

    def body(self, x: Tensor) -> Tensor:
        b = len(x)
        y = self.norm(self.conv(x.transpose(1, 2).flatten(0, 1))).mean((2, 3))
        return self.late(y.view(b, 5, 8).transpose(1, 2)).transpose(1, 2)


@model("volumes", clips)
class Volumes(Headed):
    def make(self) -> None:
        self.a, self.b = (
            nn.Conv3d(2, 4, (2, 3, 3), (2, 1, 1), (1, 0, 1), groups=2),
            nn.ConvTranspose3d(4, 8, 2, 2),
        )

    def body(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x))).flatten(2).transpose(1, 2)


@model("bilinear", features)
class Bilinear(Headed):
    def make(self) -> None:
        self.a = nn.Bilinear(8, 8, 8)

    def body(self, x: Tensor) -> Tensor:
        return self.a(x, torch.sin(x))


@model("PReLU", pictures)
class Slopes(Headed):
    def make(self) -> None:
        self.conv, self.slopes, self.one = nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.PReLU()

    def body(self, x: Tensor) -> Tensor:
        return self.one(self.slopes(self.conv(x))).flatten(2).transpose(1, 2)


@model("bags of words", words)
class Bags(Headed):
    def make(self) -> None:
        self.bag = nn.EmbeddingBag(11, 8, mode="mean")

    def body(self, x: Tensor) -> Tensor:
        return self.bag(x)


@model("cross attention", tokens)
class CrossAttention(Headed):
    def make(self) -> None:
        self.attention, self.memory = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        memory = self.memory(x[:, :4])
        return self.attention(x, memory, memory)[0]


@model("keys of another width", tokens)
class OtherWidths(Headed):
    def make(self) -> None:
        self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, add_bias_kv=True)

    def body(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.attention(x, x[..., :4], x[..., 4:])[0].transpose(0, 1)


@model("encoder and decoder", tokens)
class EncoderDecoder(Headed):
    def make(self) -> None:
        self.net = nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        return self.net(x, x[:, 1:4])


@model("weights from a network of codes", features)
class Hypernetwork(Headed):
    def make(self) -> None:
        self.code, self.maker = parameter(4), nn.Linear(4, 64)

    def body(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.tanh(self.maker(self.code)).view(8, 8))


@model("standardised weights", pictures)
class Standardised(Headed):
    def make(self) -> None:
        self.w, self.gain = parameter(8, 3, 3, 3), parameter(8, 1, 1, 1)

    def body(self, x: Tensor) -> Tensor:
        w = F.batch_norm(self.w.view(1, 8, -1), None, None, training=True).view_as(self.w)
        return F.conv2d(x, w * self.gain).flatten(2).transpose(1, 2)


@model("scales and shifts of normalisations from features", tokens)
class Film(Headed):
    def make(self) -> None:
        self.mix, self.film = nn.Linear(8, 8), nn.Linear(8, 16)

    def body(self, x: Tensor) -> Tensor:
        scale, shift = self.film(x.mean(1)).chunk(2, 1)
        return F.layer_norm(self.mix(x), (8,)) * (1 + scale[:, None]) + shift[:, None]


@model("changed in place", tokens)
class InPlace(Headed):
    def make(self) -> None:
        self.mix, self.shift = nn.Linear(8, 8), parameter(6, 8)

    def body(self, x: Tensor) -> Tensor:
        q = self.mix(x)
        q *= 0.5
        q += self.shift
        return q


@model("rows one by one", tokens)
class Rows(Headed):
    def make(self) -> None:
        self.step, self.state = nn.Linear(16, 8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        state = self.state.expand(len(x), -1)
        for row in x.transpose(0, 1):
            state = torch.tanh(self.step(torch.cat([row, state], 1)))
        return state


@model("written into an empty tensor", pictures)
class Written(Headed):
    def make(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3)
        self.token = parameter(8)

    def body(self, x: Tensor) -> Tensor:
        padded = x.new_zeros(len(x), 3, 12, 12)
        padded[:, :, 2:-2, 2:-2] = x
        y = self.conv(padded).flatten(2).transpose(1, 2)
        return torch.where(y.mean(-1, keepdim=True) > 0, y, self.token)


@model("distances to prototypes", tokens)
class Prototypes(Headed):
    def make(self) -> None:
        self.prototypes = parameter(8, 8)

    def body(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.prototypes)


@model("attention to learned queries", tokens)
class Queries(Headed):
    def make(self) -> None:
        self.queries, self.keys = parameter(4, 8), nn.Linear(8, 16)

    def body(self, x: Tensor) -> Tensor:
        k, v = self.keys(x).chunk(2, -1)
        return F.scaled_dot_product_attention(self.queries.expand(len(x), -1, -1), k, v)


@model("mixture of experts", tokens)
class Experts(Headed):
    def make(self) -> None:
        self.gate, self.experts = nn.Linear(8, 3), parameter(3, 8, 8)

    def body(self, x: Tensor) -> Tensor:
        each = torch.einsum("btc,ecd->bted", x, self.experts)
        return (self.gate(x).softmax(-1).unsqueeze(-1) * each).sum(2)


@model("a loop over layers that share a weight", tokens)
class Shared(Headed):
    def make(self) -> None:
        self.mix, self.scale = nn.Linear(8, 8), parameter(3, 8)

    def body(self, x: Tensor) -> Tensor:
        for scale in self.scale:
            x = x + scale * torch.tanh(self.mix(x))
        return x


@model("complex numbers", tokens)
class Spectrum(Headed):
    def make(self) -> None:
        self.filter = parameter(4, 8, 2)

    def body(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft(spectrum, n=6, dim=1, norm="ortho")


@model("recurrent", tokens)
class Recurrent(Headed):
    width = 10

    def make(self) -> None:
        self.rnn = nn.LSTM(8, 5, batch_first=True, bidirectional=True)

    def body(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@model("recurrent cell", tokens)
class Cells(Headed):
    def make(self) -> None:
        self.cell, self.start = nn.GRUCell(8, 8), parameter(1, 8)

    def body(self, x: Tensor) -> Tensor:
        state = self.start.expand(len(x), 8)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state


@model("a state made like a parameter", tokens)
class LikeParameter(Headed):
    def make(self) -> None:
        self.mix, self.start = nn.Linear(16, 8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        state = self.start.new_zeros(len(x), 8) + torch.zeros_like(self.start)
        for t in range(x.shape[1]):
            state = torch.tanh(self.mix(torch.cat([x[:, t], state], 1))) + self.start.type_as(x)
        return state
