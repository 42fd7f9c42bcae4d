"""Search code as other projects write it, to be swapped: three styles, and ways to be unlike the operator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

# ---- DARTS style: _ops, op.N, pools followed by a batch norm ---------------------------------------


class Skip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Nothing(nn.Module):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0) if self.step == 1 else x[:, :, :: self.step, :: self.step].mul(0.0)


class Halve(nn.Module):
    """A factorised reduction for even sizes, which cuts where others pad."""

    def __init__(self, c: int, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        self.conv_1 = nn.Conv2d(c, c // 2, 1, stride=2, padding=0, bias=False)
        self.conv_2 = nn.Conv2d(c, c - c // 2, 1, stride=2, padding=0, bias=False)
        self.bn = nn.BatchNorm2d(c, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def depthwise(c: int, k: int, s: int, d: int, affine: bool) -> list[nn.Module]:
    return [
        nn.ReLU(inplace=False),
        nn.Conv2d(c, c, k, stride=s, padding=d * (k // 2), dilation=d, groups=c, bias=False),
        nn.Conv2d(c, c, 1, padding=0, bias=False),
        nn.BatchNorm2d(c, affine=affine),
    ]


DARTS_STYLE: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda c, s, affine: Nothing(s),
    "max_pool_3x3": lambda c, s, affine: nn.MaxPool2d(3, stride=s, padding=1),
    "avg_pool_3x3": lambda c, s, affine: nn.AvgPool2d(3, stride=s, padding=1, count_include_pad=False),
    "skip_connect": lambda c, s, affine: Skip() if s == 1 else Halve(c, affine),
    "sep_conv_3x3": lambda c, s, a: Chain(*depthwise(c, 3, s, 1, a), *depthwise(c, 3, 1, 1, a)),
    "sep_conv_5x5": lambda c, s, a: Chain(*depthwise(c, 5, s, 1, a), *depthwise(c, 5, 1, 1, a)),
    "dil_conv_3x3": lambda c, s, a: Chain(*depthwise(c, 3, s, 2, a)),
    "dil_conv_5x5": lambda c, s, a: Chain(*depthwise(c, 5, s, 2, a)),
}


class DartsMixture(nn.Module):
    def __init__(self, c: int, stride: int, affine: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self._ops = nn.ModuleList()
        for name, make in DARTS_STYLE.items():
            op = make(c, stride, affine)
            if "pool" in name:
                op = nn.Sequential(op, nn.BatchNorm2d(c, affine=False))
            self._ops.append(op)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))


class DartsNetwork(nn.Module):
    """A stem, a stride-1 mixture, a stride-2 one, a classifier."""

    def __init__(self, c: int = 4, mixture: Callable[[int, int], nn.Module] = DartsMixture) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, c, 3, padding=1)
        self.edges = nn.ModuleList([mixture(c, 1), mixture(c, 2)])
        self.head = nn.Linear(c, 5)
        self.alphas = nn.Parameter(torch.randn(2, len(DARTS_STYLE)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for edge, alpha in zip(self.edges, self.alphas, strict=True):
            x = edge(x, alpha[: len(self.candidates(edge))].softmax(-1))
        return self.head(x.mean((2, 3)))

    @staticmethod
    def candidates(edge: nn.Module) -> list[nn.Module]:
        return list(next(edge.children()).children())


# ---- a style with a dictionary of choices, nested parts, pools in a class of their own -------------


class PoolThenNorm(nn.Module):
    def __init__(self, pool: nn.Module, c: int) -> None:
        super().__init__()
        self.pool = pool
        self.bn = nn.BatchNorm2d(c, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pool(x))


class Dilated(nn.Module):
    def __init__(self, c: int, k: int, s: int, d: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*depthwise(c, k, s, d, True))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Separable(nn.Module):
    def __init__(self, c: int, k: int, s: int) -> None:
        super().__init__()
        self.net = nn.Sequential(Dilated(c, k, s, 1), Dilated(c, k, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def choices(c: int, s: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        maxpool=PoolThenNorm(nn.MaxPool2d(3, s, 1), c),
        avgpool=PoolThenNorm(nn.AvgPool2d(3, s, 1, count_include_pad=False), c),
        skipconnect=nn.Identity() if s == 1 else Halve(c, True),
        sepconv3x3=Separable(c, 3, s),
        dilconv5x5=Dilated(c, 5, s, 2),
    )


class ChoiceMixture(nn.Module):
    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        self.op_choices = nn.ModuleDict(choices(c, stride))

    def forward(self, inputs: Tensor, alpha: Tensor) -> Tensor:
        stacked = torch.stack([op(inputs) for op in self.op_choices.values()])
        return torch.sum(stacked * alpha.view(-1, 1, 1, 1, 1), 0)


class OwnWeightsMixture(nn.Module):
    """Its weights are its own, so it is called with the image alone."""

    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        self.op_choices = nn.ModuleDict(choices(c, stride))
        self.alpha = nn.Parameter(torch.zeros(len(self.op_choices)))

    def forward(self, inputs: Tensor) -> Tensor:
        weights = self.alpha.softmax(-1)
        return sum(w * op(inputs) for w, op in zip(weights, self.op_choices.values(), strict=True))


# ---- NAS-Bench-201 style: ReLU-conv-BN, pools without batch norm -----------------------------------


def conv_edge(c: int, k: int, bias: bool = False) -> nn.Module:
    return Chain(
        nn.ReLU(inplace=False), nn.Conv2d(c, c, k, padding=k // 2, bias=bias), nn.BatchNorm2d(c, affine=False)
    )


def conv_candidates(c: int, bias: bool = False) -> list[nn.Module]:
    pool = Chain(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))
    return [Nothing(1), Skip(), conv_edge(c, 1, bias), conv_edge(c, 3, bias), pool]


class ConvMixture(nn.Module):
    def __init__(self, c: int, bias: bool = False) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(conv_candidates(c, bias))

    def forward(self, feature: Tensor, weights: Tensor) -> Tensor:
        out = 0
        for weight, op in zip(weights, self.candidates, strict=True):
            out = out + weight * op(feature)
        return out


class LoopInCell(nn.Module):
    """The list of candidates has no module of its own."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({"1<-0": nn.ModuleList(conv_candidates(c))})

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(op(x) * w for op, w in zip(self.edges["1<-0"], weights[0], strict=True))
