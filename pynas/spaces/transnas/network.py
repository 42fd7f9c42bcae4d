"""The networks of TransNAS-Bench-101; parameter names are those of the authors' code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.nn.candidates import FactorizedReduce201, NormOptions
from pynas.spaces.nasbench201.space import CONV_1X1, EDGES, NONE, SKIP, live_edges
from pynas.spaces.transnas.space import TILES, Block, DecoderLayer, Head

BlockFactory = Callable[[Block], nn.Module]


class ReLUConvBN(nn.Module):
    """``BN(conv(relu(x)))``; the convolution has no bias and is padded to keep the size at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.ops = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        return cast(Tensor, self.ops(x))


class Zero(nn.Module):
    """Zeros of the shape of a block's output.

    If the width changes, the authors create new zeros, which pass no gradient: everything before an all-zero
    cell then has gradient None. Here the input times zero gives it a gradient of zeros.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.stride = block.stride
        self.channels = block.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        s = self.stride
        return x[:, :1, ::s, ::s].mul(0.0).expand(-1, self.channels, -1, -1)


class MicroCell(nn.Module):
    """``x_t = sum_{s<t} op_{s,t}(x_s)``, ``t = 1..3``; edges from the input change width and resolution.

    ``edges.i`` is the operation on edge ``i``. In a pruned cell the keys have gaps; a cell without live edges
    gives zeros.
    """

    def __init__(self, decisions: tuple[int, ...], block: Block, prune: bool) -> None:
        super().__init__()
        live = live_edges(decisions) if prune else (True,) * len(decisions)
        inner = Block(block.out_channels, block.out_channels, 1)
        self.edges = nn.ModuleDict(
            {
                str(i): _operation(decision, block if EDGES[i][0] == 0 else inner)
                for i, decision in enumerate(decisions)
                if live[i]
            }
        )
        self.order = tuple((str(i), *EDGES[i]) for i in range(len(decisions)) if live[i])
        self.zero = Zero(block)

    def forward(self, x: Tensor) -> Tensor:
        """The output node."""
        nodes = {0: x}
        for key, source, target in self.order:
            y = self.edges[key](nodes[source])
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[3] if 3 in nodes else cast(Tensor, self.zero(x))


def _operation(decision: int, block: Block) -> nn.Module:
    if decision == NONE:
        return Zero(block)
    if decision == SKIP:
        if block == Block(block.out_channels, block.out_channels, 1):
            return nn.Identity()
        return FactorizedReduce201(block.in_channels, block.out_channels, NormOptions(affine=True))
    kernel_size = 1 if decision == CONV_1X1 else 3
    return ReLUConvBN(block.in_channels, block.out_channels, kernel_size, block.stride)


class BasicBlock(nn.Module):
    """``f(f(x)) + shortcut(x)``, f = ReLU-conv3x3-BN; if the shape changes the shortcut is conv1x1-BN."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        a, b, stride = block.in_channels, block.out_channels, block.stride
        self.conv_a = ReLUConvBN(a, b, 3, stride)
        self.conv_b = ReLUConvBN(b, b, 3, 1)
        self.downsample: nn.Module | None = None
        if a != b or stride != 1:
            # As in the published networks, where `affine` and `track_running_stats` were passed in the
            # positions of eps and momentum.
            norm = nn.BatchNorm2d(b, eps=1.0, momentum=1.0)
            self.downsample = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        residual = x if self.downsample is None else self.downsample(x)
        return cast(Tensor, residual + self.conv_b(self.conv_a(x)))


class Encoder(nn.Sequential):
    """``stem``, ``layer0``, ``layer1``, ...; convolutions are initialised as in the authors' code."""

    def __init__(self, modules: list[list[Block]], factory: BlockFactory, in_channels: int) -> None:
        super().__init__()
        c = modules[0][0].in_channels
        self.add_module(
            "stem",
            nn.Sequential(
                nn.Conv2d(in_channels, c // 2, 3, 2, 1, bias=False),
                nn.BatchNorm2d(c // 2),
                ReLUConvBN(c // 2, c, 3, 2),
            ),
        )
        for i, blocks in enumerate(modules):
            self.add_module(f"layer{i}", nn.Sequential(*map(factory, blocks)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class LinearDecoder(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs]``."""
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))


class DecoderConv(nn.Module):
    """Convolution, batch norm, activation; the last two may be absent."""

    def __init__(self, layer: DecoderLayer, norm: bool, activation: nn.Module | None) -> None:
        super().__init__()
        a, b = layer.in_channels, layer.out_channels
        self.conv: nn.Module
        if layer.doubles:
            self.conv = nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1)
        else:
            self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.norm = nn.BatchNorm2d(b) if norm else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H', W']``."""
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        return cast(Tensor, y if self.activation is None else self.activation(y))


def _dense(layers: list[DecoderLayer], last: nn.Module | None) -> list[DecoderConv]:
    inner = [DecoderConv(layer, True, nn.LeakyReLU(0.2)) for layer in layers[:-1]]
    return [*inner, DecoderConv(layers[-1], False, last)]


def _decoder(head: Head, layers: list[DecoderLayer], channels: int, outputs: int) -> nn.Module:
    if head == "segmentation":
        return nn.Sequential(OrderedDict(model=nn.Sequential(*_dense(layers, None))))
    if head == "generative":
        named = nn.Sequential()
        for i, layer in enumerate(_dense(layers, nn.Tanh()), start=1):
            named.add_module(f"conv{i}", layer)
        return named
    return LinearDecoder(channels * (TILES if head == "tiles" else 1), outputs)


class TransNASNetwork(nn.Module):
    """``decoder(encoder(x))``.

    State dicts of the authors' code load with ``strict=True``: they wrap the encoder, so that its names start
    with ``encoder.network.``.
    """

    def __init__(
        self,
        modules: list[list[Block]],
        factory: BlockFactory,
        layers: list[DecoderLayer],
        *,
        head: Head,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.head = head
        self.divisor = 4
        for blocks in modules:
            self.divisor *= blocks[0].stride
        self.encoder = Encoder(modules, factory, in_channels)
        self.decoder = _decoder(head, layers, modules[-1][-1].out_channels, num_classes)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        wrapped = f"{prefix}encoder.network."
        for name in [name for name in state_dict if name.startswith(wrapped)]:
            state_dict[f"{prefix}encoder.{name[len(wrapped) :]}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, num_classes]``, or ``[B, num_classes, H, W]`` for a dense task.

        Args:
            x: Images ``[B, C, H, W]``, or the tiles ``[B, 9, C, H, W]`` of jigsaw puzzles.
        """
        if self.head == "tiles":
            if x.dim() != 5 or x.shape[1] != TILES:
                raise UserError(f"inputs: expected tiles [B, {TILES}, C, H, W], got {list(x.shape)}")
            # One after the other, so that batch statistics are those of one position in the puzzle.
            parts = [self.encoder(tile) for tile in x.unbind(1)]
            return cast(Tensor, self.decoder(torch.cat(parts, dim=1)))
        if x.dim() != 4:
            raise UserError(f"inputs: expected images [B, C, H, W], got {list(x.shape)}")
        d = self.divisor
        if self.head in ("segmentation", "generative") and (x.shape[2] % d or x.shape[3] % d):
            raise UserError(
                f"inputs: expected [B, C, H, W] with H and W multiples of {d}, by which this encoder divides "
                f"them, got {list(x.shape)}"
            )
        return cast(Tensor, self.decoder(self.encoder(x)))
