"""The networks of ProxylessNAS; parameter names are those of the authors' code."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from pynas.spaces.proxylessnas.space import MBConv


def _layer(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution ``conv``, batch norm ``bn``, ReLU6 ``act``."""
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=convolution, bn=nn.BatchNorm2d(out_channels, eps=1e-3)
    )
    if act:
        layers["act"] = nn.ReLU6()
    return nn.Sequential(layers)


class InvertedConv(nn.Module):
    """The operation of a block."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        place, m = block.place, block.channels
        self.inverted_bottleneck: nn.Module | None = None
        if block.expansion > 1:
            self.inverted_bottleneck = _layer(place.in_channels, m, 1, 1)
        self.depth_conv = _layer(m, m, block.kernel_size, place.stride, groups=m)
        self.point_linear = _layer(m, place.out_channels, 1, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        if self.inverted_bottleneck is not None:
            x = self.inverted_bottleneck(x)
        return cast(Tensor, self.point_linear(self.depth_conv(x)))


class InvertedResidual(nn.Module):
    """``op(x)``, and ``x`` added to it if ``shortcut``."""

    def __init__(self, block: MBConv, shortcut: bool) -> None:
        super().__init__()
        self.mobile_inverted_conv = InvertedConv(block)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        y = self.mobile_inverted_conv(x)
        return cast(Tensor, x + y if self.shortcut else y)


class ProxylessNASNetwork(nn.Module):
    """Stem, blocks, 1x1 convolution, classifier; the first block never has a shortcut."""

    def __init__(
        self,
        blocks: tuple[MBConv | None, ...],
        *,
        stem_channels: int,
        last_channels: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.first_conv = _layer(in_channels, stem_channels, 3, 2)
        self.blocks = nn.Sequential()
        width = stem_channels
        for i, block in enumerate(blocks):
            if block is None:
                self.blocks.append(nn.Identity())
                continue
            self.blocks.append(InvertedResidual(block, i > 0 and block.place.keeps_shape))
            width = block.place.out_channels
        self.feature_mix_layer = _layer(width, last_channels, 1, 1)
        self.global_avg_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(last_channels, num_classes)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``."""
        y = self.feature_mix_layer(self.blocks(self.first_conv(x)))
        return cast(Tensor, self.classifier(self.global_avg_pooling(y).flatten(1)))
