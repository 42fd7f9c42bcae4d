"""The networks of Single Path One-Shot; parameter names are those of the authors' searched networks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pynas.spaces.spos_shufflenet.space import LAST_CHANNELS, STAGES, STEM_CHANNELS, Block


def _depthwise(channels: int, kernel_size: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(
        channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels)]


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


class ChoiceBlock(nn.Module):
    """``cat[other(x), main(x)]`` at stride 2, ``cat[even channels, main(odd channels)]`` at stride 1."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        c, m, k, s = block.in_channels, block.channels, block.kernel_size, block.stride
        if block.xception:
            main = _depthwise(c, k, s) + _pointwise(c, m) + _depthwise(m, k, 1) + _pointwise(m, m)
            main += _depthwise(m, k, 1) + _pointwise(m, block.branch_channels)
        else:
            main = _pointwise(c, m) + _depthwise(m, k, s) + _pointwise(m, block.branch_channels)
        self.branch_main = nn.Sequential(*main)
        self.branch_proj: nn.Module | None = None
        if s == 2:
            self.branch_proj = nn.Sequential(*_depthwise(c, k, s), *_pointwise(c, c))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        if self.branch_proj is not None:
            return torch.cat((self.branch_proj(x), self.branch_main(x)), dim=1)
        return torch.cat((x[:, 0::2], self.branch_main(x[:, 1::2])), dim=1)


class SPOSNetwork(nn.Module):
    """Stem, 20 blocks, 1x1 convolution, classifier."""

    def __init__(
        self, blocks: tuple[Block, ...], *, num_classes: int, in_channels: int, dropout: float
    ) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, STEM_CHANNELS, 3, 2, 1, bias=False)
        self.first_conv = nn.Sequential(stem, nn.BatchNorm2d(STEM_CHANNELS), nn.ReLU())
        self.features = nn.Sequential(*map(ChoiceBlock, blocks))
        self.conv_last = nn.Sequential(*_pointwise(STAGES[-1][1], LAST_CHANNELS))
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(nn.Linear(LAST_CHANNELS, num_classes, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.01 if module is stem else 1 / module.weight.shape[1])
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.0001)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``."""
        y = self.globalpool(self.conv_last(self.features(self.first_conv(x)))).flatten(1)
        return cast(Tensor, self.classifier(self.dropout(y)))
