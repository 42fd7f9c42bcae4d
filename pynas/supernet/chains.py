"""Supernets of spaces that are chains of blocks: they hold every choice of every block.

Source: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
arXiv:1904.00420.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import ProxylessNAS, SPOSShuffleNet
from pynas.spaces.base import check_positive
from pynas.spaces.proxylessnas.network import ProxylessNASNetwork
from pynas.spaces.proxylessnas.space import OPERATIONS
from pynas.spaces.spos_shufflenet.network import ChoiceBlock
from pynas.spaces.spos_shufflenet.space import LAST_CHANNELS, STEM_CHANNELS, Block
from pynas.supernet._base import Segment, SharedWeights, call, without_affine


class ChainWeights(SharedWeights):
    """A stem, blocks with choices, a head; subclasses define these under the names of the authors' code."""

    def _stem(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError

    def _choices(self) -> Sequence[Sequence[nn.Module]]:
        """The modules of each decision, in order."""
        raise NotImplementedError

    def _head(self, x: Tensor) -> Any:
        raise NotImplementedError

    def _head_modules(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """Stem, blocks, head; the key of a block is its decision."""
        decisions = self.space.check(arch)
        stem = [Segment(("stem", i), module, (module,)) for i, module in enumerate(self._stem())]
        blocks = [
            Segment(decision, call(choices[decision]), (choices[decision],))
            for choices, decision in zip(self._choices(), decisions, strict=True)
        ]
        return (*stem, *blocks, Segment("head", self._head, self._head_modules()))


class SPOSSupernet(ChainWeights):
    """The supernet of Single Path One-Shot's ShuffleNetV2 space; the authors' state dicts load.

    Args:
        space: The space; if None, ``spos_shufflenet`` as published.
        num_classes: Number of classes.
        in_channels: Channels of images.
        width: Factor of all numbers of channels, which are rounded up to multiples of four.
        affine: Whether batch norms have a weight and a bias; the authors' have neither.
    """

    def __init__(
        self,
        space: SPOSShuffleNet | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        width: float = 1.0,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.space = SPOSShuffleNet() if space is None else space
        if not isinstance(self.space, SPOSShuffleNet):
            raise UserError(f"space: expected spos_shufflenet, got {self.space.name}")
        if not 0 < width <= 8:
            raise UserError(f"width: expected a factor in (0, 8], got {width!r}")
        check_positive(num_classes=num_classes, in_channels=in_channels)
        stem_channels, last_channels = _scaled(STEM_CHANNELS, width), _scaled(LAST_CHANNELS, width)
        stem = nn.Conv2d(in_channels, stem_channels, 3, 2, 1, bias=False)
        self.first_conv = nn.Sequential(stem, nn.BatchNorm2d(stem_channels), nn.ReLU())
        chosen = [self._blocks(choice, width) for choice in range(self.space.num_choices[0])]
        self.features = nn.ModuleList(
            nn.ModuleList(map(ChoiceBlock, choices)) for choices in zip(*chosen, strict=True)
        )
        last = nn.Conv2d(chosen[0][-1].out_channels, last_channels, 1, bias=False)
        self.conv_last = nn.Sequential(last, nn.BatchNorm2d(last_channels), nn.ReLU())
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(self.space.dropout)
        self._modules["classifier"] = nn.Sequential(nn.Linear(last_channels, num_classes, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.01 if module is stem else 1 / module.weight.shape[1])
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.0001)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
        if not affine:
            without_affine(self)

    def _blocks(self, choice: int, width: float) -> tuple[Block, ...]:
        """The blocks with ``choice`` everywhere, at this width."""
        assert isinstance(self.space, SPOSShuffleNet)
        blocks = self.space.blocks(Architecture(self.space.name, (choice,) * len(self.space.num_choices)))
        found: list[Block] = []
        before = _scaled(STEM_CHANNELS, width)
        for block in blocks:
            out = _scaled(block.out_channels, width)
            entering = before if block.stride == 2 else out // 2
            found.append(replace(block, in_channels=entering, channels=out // 2, out_channels=out))
            before = out
        return tuple(found)

    def _stem(self) -> tuple[nn.Module, ...]:
        return (self.first_conv,)

    def _choices(self) -> Sequence[Sequence[nn.Module]]:
        return cast(Sequence[Sequence[nn.Module]], self.features)

    def _head(self, x: Tensor) -> Any:
        return self._last(self.dropout(self.globalpool(self.conv_last(x)).flatten(1)))

    def _head_modules(self) -> tuple[nn.Module, ...]:
        return (self.conv_last, self._last)

    @property
    def _last(self) -> nn.Sequential:
        return cast(nn.Sequential, self._modules["classifier"])

    def classifier(self) -> nn.Linear:
        """``classifier.0``."""
        return cast(nn.Linear, self._last[0])

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self._last[0] = layer


class ProxylessNASSupernet(ChainWeights):
    """The supernet of ``proxylessnas``: blocks with all operations each; ``Zero`` has no weights.

    Args:
        space: The space, which defines the numbers of channels; if None, ``proxylessnas`` as published.
        num_classes: Number of classes.
        in_channels: Channels of images.
        affine: Whether batch norms have a weight and a bias.
    """

    def __init__(
        self,
        space: ProxylessNAS | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.space = ProxylessNAS() if space is None else space
        if not isinstance(self.space, ProxylessNAS):
            raise UserError(f"space: expected proxylessnas, got {self.space.name}")
        networks = [
            self.space.build(self._everywhere(choice), num_classes, in_channels)
            for choice in range(len(OPERATIONS))
        ]
        first = networks[0]
        assert isinstance(first, ProxylessNASNetwork)
        self.first_conv = first.first_conv
        self.first_block = first.blocks[0]
        self.blocks = nn.ModuleList()
        for i, count in enumerate(self.space.num_choices):
            self.blocks.append(
                nn.ModuleList(cast(ProxylessNASNetwork, net).blocks[1 + i] for net in networks[:count])
            )
        self.feature_mix_layer = first.feature_mix_layer
        self.global_avg_pooling = first.global_avg_pooling
        self._modules["classifier"] = first.classifier
        if not affine:
            without_affine(self)

    def _everywhere(self, choice: int) -> Architecture:
        assert isinstance(self.space, ProxylessNAS)
        counts = self.space.num_choices
        return Architecture(self.space.name, tuple(min(choice, count - 1) for count in counts))

    def _stem(self) -> tuple[nn.Module, ...]:
        return (self.first_conv, self.first_block)

    def _choices(self) -> Sequence[Sequence[nn.Module]]:
        return cast(Sequence[Sequence[nn.Module]], self.blocks)

    def _head(self, x: Tensor) -> Any:
        return self._last(self.global_avg_pooling(self.feature_mix_layer(x)).flatten(1))

    def _head_modules(self) -> tuple[nn.Module, ...]:
        return (self.feature_mix_layer, self._last)

    @property
    def _last(self) -> nn.Sequential:
        return cast(nn.Sequential, self._modules["classifier"])

    def classifier(self) -> nn.Linear:
        """``classifier.linear``."""
        return cast(nn.Linear, self._last.linear)

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self._last._modules["linear"] = layer


def _scaled(channels: int, width: float) -> int:
    return 4 * math.ceil(channels * width / 4)
