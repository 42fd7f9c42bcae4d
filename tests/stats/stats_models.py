"""Small models, and their per-sample gradients by an independent reference: one sample at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


class Head(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(2).mean(2) if x.dim() > 2 else x)


def conv2d(*args: int, **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(*args, **kwargs)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 12, (3, 1), stride=(2, 1), padding="valid", groups=4),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 6, 4, padding="same"),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        Head(4),
    )


def normnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.InstanceNorm2d(6, affine=True),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.LayerNorm([4, 2, 2]),
        nn.Flatten(2),
        nn.RMSNorm(4),
        nn.LayerNorm(4, bias=False),
        nn.Conv1d(4, 4, 3, padding=1),
        Head(4),
    )


def frozen_batch_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Head(6), nn.BatchNorm1d(CLASSES))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
    return model


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES)
    )


class Twice(nn.Module):
    """One convolution at two resolutions, one linear at two depths, one norm twice, a dead layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.linear = nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)
        self.dead = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.conv(self.stem(x))))
        x = self.norm(F.relu(self.conv(F.avg_pool2d(x, 2))))
        x = self.linear(x.flatten(2).transpose(1, 2))
        x = torch.tanh(self.linear(x.mean(1)))
        self.dead(x)
        return self.head(x)


class Mixed(nn.Module):
    """A weight used by a 1x1 convolution, as a linear weight and under another stride: no common product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.conv = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(self.stem(x)))
        x = F.conv2d(x, self.conv.weight, self.conv.bias, stride=2)
        return self.head(x.mean((2, 3)))


class Language(nn.Module):
    """Embedding with padding and tied output weights, transformer encoder, mean over positions."""

    def __init__(self, tied: bool = True, batch_first: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(8, 11, bias=True)
        self.batch_first = batch_first
        if tied:
            self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.batch_first:
            return self.out(self.encoder(x)).mean(1)
        return self.out(self.encoder(x.transpose(0, 1))).mean(0)


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 6)
        self.rnn = nn.LSTM(6, 7, num_layers=2, batch_first=batch_first)
        self.head = nn.Linear(7, CLASSES)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x.flatten(2).transpose(1, 2))
        x = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.rnn(x)
        return self.head(y[:, -1] if self.batch_first else y[-1])


class Patches(nn.Module):
    """A vision-transformer stem: class token and positions are parameters of the module itself."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.position = nn.Parameter(torch.randn(1, 17, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, 2)
        self.tokens = self.Tokens()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(torch.tanh(x)[:, 0] + torch.tanh(x).mean(1))


def per_sample(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    group_size: int = 1,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> dict[str, Tensor]:
    """[G, *shape] gradients of each group forwarded alone, scaled to its share of the batch's mean loss."""
    rows: dict[str, list[Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for start in range(0, len(x), group_size):
        value = loss(model(x[start : start + group_size]), y[start : start + group_size]) * (
            group_size / len(x)
        )
        found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        for (name, p), g in zip(model.named_parameters(), found, strict=True):
            rows[name].append(torch.zeros_like(p) if g is None else g)
    return {name: torch.stack(values) for name, values in rows.items()}
