"""Small networks that fold samples into other dimensions, copy what they compute, or route rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.stats.any_models import Headed, model, parameter, pictures, tokens


@model("samples repeated side by side", tokens)
class Repeated(Headed):
    def make(self) -> None:
        self.mix, self.scale = nn.Linear(8, 8), parameter(3, 1, 8)

    def body(self, x: Tensor) -> Tensor:
        y = torch.repeat_interleave(self.mix(x), 3, dim=0)
        y = torch.tanh(self.mix(y)).unflatten(0, (-1, 3)) * self.scale
        return y.sum(1) + x.repeat_interleave(2, 1)[:, ::2]


@model("a table repeated side by side", tokens)
class TableRepeated(Headed):
    def make(self) -> None:
        self.mix, self.table = nn.Linear(8, 8), parameter(6, 8)

    def body(self, x: Tensor) -> Tensor:
        rows = self.mix(x).transpose(0, 1).reshape(-1, 8)  # the samples of each token side by side
        rows = rows + self.table.repeat_interleave(len(x), 0)
        return torch.tanh(rows).view(6, len(x), 8).transpose(0, 1)


@model("a vector stacked over the batch", tokens)
class Stacked(Headed):
    def make(self) -> None:
        self.mix, self.token = nn.Linear(8, 8), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        token = torch.stack([self.token.tanh()] * len(x))
        return self.mix(torch.cat([token[:, None], x], 1))


@model("rows joined over the batch", tokens)
class Joined(Headed):
    def make(self) -> None:
        self.mix, self.tokens = nn.Linear(8, 8), parameter(1, 2, 8)

    def body(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.tokens] * len(x))
        return self.mix(torch.cat([tokens, x], 1)) * torch.cat([self.tokens, self.tokens], 2)[..., 4:12].sum(
            1
        )


@model("convolutions with weights of each sample", pictures)
class Conditional(Headed):
    """CondConv: kernels mixed by a gate, all samples as groups of one convolution."""

    def make(self) -> None:
        self.kernels, self.biases = parameter(4, 8, 3, 3, 3), parameter(4, 8)
        self.gate = nn.Linear(3, 4)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        mix = torch.sigmoid(self.gate(x.mean((2, 3))))
        weight = (mix @ self.kernels.flatten(1)).view(b * 8, c, 3, 3)
        bias = (mix @ self.biases).view(-1)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, bias, padding=1, groups=b)
        return y.view(b, 8, h, w).flatten(2).transpose(1, 2)


@model("convolutions with a copied kernel", pictures)
class Copied(Headed):
    def make(self) -> None:
        self.kernel, self.bias = parameter(8, 3, 3, 3), parameter(8)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = self.kernel.repeat(b, 1, 1, 1)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, self.bias.repeat(b), padding=1, groups=b)
        return y.view(b, 8, h, w).flatten(2).transpose(1, 2)


@model("a depthwise filter of each sample", pictures)
class Filters(Headed):
    def make(self) -> None:
        self.make_filter, self.mix = nn.Linear(3, 27), nn.Conv2d(3, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = self.make_filter(x.mean((2, 3))).view(b * c, 1, 3, 3)
        y = F.conv2d(x.view(1, b * c, h, w), weight, padding=1, groups=b * c).view(b, c, h, w)
        return self.mix(y).flatten(2).transpose(1, 2)


@model("gathered by a table of places", tokens)
class Gathered(Headed):
    """Disentangled attention: scores for relative places, taken by indices that are copied over the batch."""

    def make(self) -> None:
        self.q, self.k, self.places = nn.Linear(8, 8), nn.Linear(8, 8), parameter(2, 11, 4)

    def body(self, x: Tensor) -> Tensor:
        def heads(t: Tensor) -> Tensor:
            return t.view(*t.shape[:2], 2, 4).permute(0, 2, 1, 3).reshape(-1, t.shape[1], 4)

        q, k = heads(self.q(x)), heads(self.k(x))
        index = torch.arange(6)[:, None] - torch.arange(6) + 5
        scores = torch.bmm(q, self.places.repeat(len(x), 1, 1).transpose(1, 2))
        scores = torch.gather(scores, -1, index.expand(len(q), 6, 6)) + torch.bmm(q, k.transpose(1, 2))
        y = torch.bmm(scores.softmax(-1), k)
        return y.view(-1, 2, 6, 4).permute(0, 2, 1, 3).reshape(-1, 6, 8)


@model("windows unfolded into the batch", pictures)
class Windows(Headed):
    """MobileViT: the places of all patches with one offset form a sequence."""

    def make(self) -> None:
        self.embed, self.mix, self.token = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), parameter(4, 1, 8)

    def body(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        b = len(y)
        y = y.reshape(b * 8 * 4, 2, 4, 2).transpose(1, 2).reshape(b, 8, 16, 4)
        y = y.transpose(1, 3).reshape(b * 4, 16, 8)
        y = torch.tanh(self.mix(y)) + self.token.repeat(b, 1, 1)
        y = y.view(b, 4, 16, 8).transpose(1, 3).reshape(b * 8 * 4, 4, 2, 2)
        return y.transpose(1, 2).reshape(b, 8, 8, 8).flatten(2).transpose(1, 2)


@model("a class token before folded frames", tokens)
class Frames(Headed):
    """TimeSformer: time for each place, then places for each time with the class token copied."""

    def make(self) -> None:
        self.token, self.time, self.space = parameter(1, 1, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        b, frames, places = len(x), 2, 3
        x = torch.cat([self.token.expand(b, -1, -1), x], 1)
        y = x[:, 1:].reshape(b, places, frames, 8).reshape(b * places, frames, 8)
        y = torch.tanh(self.time(y)).reshape(b, places * frames, 8) + x[:, 1:]
        first = x[:, :1].repeat(1, frames, 1).reshape(b * frames, 1, 8)
        y = y.reshape(b, places, frames, 8).permute(0, 2, 1, 3).reshape(b * frames, places, 8)
        y = self.space(torch.cat([first, y], 1).tanh())
        token = y[:, 0].reshape(b, frames, 8).mean(1, keepdim=True)
        return torch.cat([token, y[:, 1:].reshape(b, frames * places, 8)], 1)


@model("shifted windows", pictures)
class Shifted(Headed):
    def make(self) -> None:
        self.embed, self.mix, self.bias = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), parameter(4, 4)

    def body(self, x: Tensor) -> Tensor:
        y = torch.roll(self.embed(x).permute(0, 2, 3, 1), (-1, -1), (1, 2))
        b = len(y)
        y = y.view(b, 4, 2, 4, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        scores = (self.mix(y) @ y.transpose(1, 2) + self.bias).softmax(-1)
        y = (scores @ y).view(b, 4, 4, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, 8)
        return torch.roll(y, (1, 1), (1, 2)).flatten(1, 2)


@model("copies in two orders", tokens)
class TwoOrders(Headed):
    """As many tokens as samples: only the order tells whose a copy is."""

    def make(self) -> None:
        self.mix, self.a, self.b = nn.Linear(8, 8), parameter(6, 8), parameter(6, 8)

    def body(self, x: Tensor) -> Tensor:
        tokens_first = x.transpose(0, 1).reshape(-1, 8) * self.a.repeat_interleave(len(x), 0).sin()
        samples_first = torch.tanh(self.mix(x)).reshape(-1, 8) * self.b.repeat(len(x), 1)
        return tokens_first.view(6, len(x), 8).transpose(0, 1) + samples_first.view(-1, 6, 8)
