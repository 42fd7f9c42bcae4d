"""The networks of NATS-Bench's size search space; parameter names are those of the authors' code."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pynas._errors import UserError
from pynas.nn.candidates import NormOptions, ReLUConvBN
from pynas.nn.cell import ResidualBlock
from pynas.nn.nasbench201_cell import EDGES, Cell
from pynas.spaces.nasbench201.space import SKIP
from pynas.spaces.nats_size.space import CELL


class Projection(nn.Module):
    """``BN(conv(x))`` with a 1x1 convolution: a skip connection between different widths."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H, W]``."""
        return cast(Tensor, self.bn(self.conv(x)))


class ShapedCell(Cell):
    """The fixed cell; the operations that read its input change the width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        nn.Module.__init__(self)  # a cell of NAS-Bench-201 whose layers differ
        self.layers = nn.ModuleDict()
        for i, (operation, (source, _)) in enumerate(zip(CELL, EDGES, strict=True)):
            width = in_channels if source == 0 else out_channels
            if operation != SKIP:
                layer: nn.Module = ReLUConvBN(width, out_channels, 3, 1, NormOptions(affine=True))
            elif width == out_channels:
                layer = nn.Identity()
            else:
                layer = Projection(width, out_channels)
            self.layers[str(i)] = layer
        self.edges = tuple((str(i), *edge) for i, edge in enumerate(EDGES))


class NATSSizeNetwork(nn.Module):
    """Stem, three cells with residual blocks between them, classifier."""

    def __init__(self, widths: tuple[int, ...], *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = widths
        self.stem = nn.Sequential(nn.Conv2d(in_channels, c1, 3, padding=1, bias=False), nn.BatchNorm2d(c1))
        self.cells = nn.Sequential(
            ShapedCell(c1, c1), ResidualBlock(c1, c2), ShapedCell(c2, c3), ResidualBlock(c3, c4),
            ShapedCell(c4, c5),
        )  # fmt: skip
        self.lastact = nn.Sequential(nn.BatchNorm2d(c5), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c5, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``; H and W multiples of 4."""
        if x.dim() != 4 or min(x.shape[2:]) < 4 or x.shape[2] % 4 or x.shape[3] % 4:
            raise UserError(
                "inputs: expected [B, C, H, W] with H and W positive multiples of 4 (the network halves them "
                f"twice), got {list(x.shape)}"
            )
        y = self.lastact(self.cells(self.stem(x)))
        return cast(Tensor, self.classifier(self.global_pooling(y).flatten(1)))
