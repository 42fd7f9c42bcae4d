"""The networks of the Zen-NAS/ZiCo space in plain PyTorch modules.

Module names (``module_list.N.module_list.M.module_list.K.netblock``, ``proj``, ``fc_linear.netblock``) are
those of the authors' code, so that published state dicts load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pynas.spaces.mbv2_zico.blocks import Block, Unit

_EPSILON = 1e-3


class Part(nn.Module):
    """A convolution, batch norm or classifier under the name ``netblock``."""

    def __init__(self, netblock: nn.Module) -> None:
        super().__init__()
        self.netblock = netblock

    def forward(self, x: Tensor) -> Tensor:
        """``netblock(x)``."""
        return cast(Tensor, self.netblock(x))


class SqueezeExcite(Part):
    """``x * sigmoid(netblock(mean of x over pixels))``, channel by channel."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with its channels rescaled."""
        return x * cast(Tensor, self.netblock(x))


class Chain(nn.Module):
    """Modules one after the other under the name ``module_list``."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """Apply all modules in order."""
        for module in self.module_list:
            x = module(x)
        return x


class ResidualUnit(Chain):
    """An inverted residual and its link, before the ReLU."""

    def __init__(self, modules: Sequence[nn.Module], unit: Unit) -> None:
        super().__init__(modules)
        self.proj: nn.Module | None = None
        if unit.projected:
            self.proj = nn.Sequential(
                nn.Conv2d(unit.before, unit.width, 1, unit.stride),
                nn.BatchNorm2d(unit.width, eps=_EPSILON),
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return super().forward(x) + (x if self.proj is None else self.proj(x))


class MBV2ZiCoNetwork(nn.Module):
    """Stem, super-blocks, last convolution, global average pooling, classifier."""

    def __init__(
        self,
        stem: int,
        blocks: Sequence[Block],
        last: int,
        *,
        num_classes: int,
        in_channels: int,
        residual: bool,
        squeeze_excite: bool,
    ) -> None:
        super().__init__()
        parts = [Chain(_convolution(in_channels, stem, 3, stride=2))]
        width = stem
        for block in blocks:
            modules: list[nn.Module] = []
            for unit in block.units(width):
                inner = _unit(unit, squeeze_excite)
                modules += [ResidualUnit(inner, unit)] if residual else inner
                modules.append(nn.ReLU())
            parts.append(Chain(modules))
            width = block.width
        parts.append(Chain(_convolution(width, last, 1)))
        self.module_list = nn.ModuleList(parts)
        self.fc_linear = Part(nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``."""
        for part in self.module_list:
            x = part(x)
        return cast(Tensor, self.fc_linear(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)))


def _convolution(
    before: int, width: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> list[nn.Module]:
    """Convolution, batch norm, and the ReLU if asked for."""
    convolution = nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    modules: list[nn.Module] = [Part(convolution), Part(nn.BatchNorm2d(width, eps=_EPSILON))]
    return [*modules, nn.ReLU()] if relu else modules


def _unit(unit: Unit, squeeze_excite: bool) -> list[nn.Module]:
    """The convolutions of an inverted residual."""
    modules = _convolution(unit.before, unit.middle, 1)
    modules += _convolution(unit.middle, unit.middle, unit.kernel, unit.stride, groups=unit.middle)
    if squeeze_excite:
        modules.append(_squeeze_excite(unit))
    return modules + _convolution(unit.middle, unit.width, 1, relu=False)


def _squeeze_excite(unit: Unit) -> nn.Module:
    return SqueezeExcite(
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(unit.middle, unit.squeezed, 1, bias=False),
            nn.BatchNorm2d(unit.squeezed, eps=_EPSILON),
            nn.ReLU(),
            nn.Conv2d(unit.squeezed, unit.middle, 1, bias=False),
            nn.BatchNorm2d(unit.middle, eps=_EPSILON),
            nn.Sigmoid(),
        )
    )
