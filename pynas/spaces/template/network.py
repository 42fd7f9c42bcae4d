"""The networks of templates, and the modules of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pynas.spaces.template.plan import Activation, Conv, Join, Norm, Operation, Plan, Pool, Shuffle, Sum

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
}


class SumBlock(nn.Module):
    """``main(x) + shortcut(x)``."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]``."""
        return cast(Tensor, self.main(x) + self.shortcut(x))


class JoinBlock(nn.Module):
    """``x <- cat(x, layer(x))`` for each layer."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C + growth * layers, H, W]``."""
        for layer in self.layers:
            x = torch.cat((x, layer(x)), dim=1)
        return x


class ShuffleBlock(nn.Module):
    """Two halves of channels, side by side and shuffled; see :class:`~pynas.spaces.template.plan.Shuffle`."""

    def __init__(self, main: nn.Module, other: nn.Module | None) -> None:
        super().__init__()
        self.main, self.other = main, other

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H', W']``."""
        if self.other is None:
            half = x.shape[1] // 2
            first, second = x[:, :half], self.main(x[:, half:])
        else:
            first, second = self.other(x), self.main(x)
        # Channel c of the first half, channel c of the second, channel c + 1 of the first, ...
        return torch.stack((first, second), dim=2).flatten(1, 2)


def block(plan: Plan) -> nn.Module:
    """New modules that compute a plan: ``nn.Identity``, or an ``nn.Sequential`` of its operations."""
    return nn.Sequential(*map(_module, plan)) if plan else nn.Identity()


def _module(operation: Operation) -> nn.Module:
    match operation:
        case Conv() as c:
            return nn.Conv2d(
                c.in_channels, c.channels, c.kernel, c.stride, c.padding, c.dilation, c.groups, c.bias
            )
        case Norm("group", channels):
            return nn.GroupNorm(operation.groups, channels)
        case Norm(_, channels, affine):
            return nn.BatchNorm2d(channels, affine=affine)
        case Activation(name):
            return _ACTIVATIONS[name]()
        case Pool("max", kernel, stride, padding, ceil):
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
        case Pool(_, kernel, stride, padding, ceil):
            return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=False)
        case Sum(main, shortcut):
            return SumBlock(block(main), block(shortcut))
        case Join(layers):
            return JoinBlock([block(layer) for layer in layers])
        case Shuffle(main, other):
            return ShuffleBlock(block(main), None if other is None else block(other))
    raise TypeError(operation)


def initialise(module: nn.Module) -> None:
    """Draw the weights of convolutions from ``N(0, 2 / inputs)`` and set their biases to zero."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_in", nonlinearity="relu")
            if each.bias is not None:
                nn.init.zeros_(each.bias)


class TemplateNetwork(nn.Module):
    """Stem, layers, global average pooling, linear classifier."""

    def __init__(self, stem: Plan, layers: Sequence[Plan], channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = block(stem)
        self.layers = nn.Sequential(*map(block, layers))
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, in_channels, H, W]``."""
        return cast(Tensor, self.classifier(self.global_pooling(self.layers(self.stem(x))).flatten(1)))
