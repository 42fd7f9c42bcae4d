"""The networks of NAS-Bench-201 in plain PyTorch modules; the only part of the space that imports torch.

Module names (``stem``, ``cells.N.layers.M.op``, ``conv_a``, ``conv_b``, ``downsample``, ``lastact``,
``classifier``) are those of the authors' code, so that published state dicts load.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pynas._errors import UserError
from pynas.nn.cell import ResidualBlock
from pynas.nn.nasbench201_cell import Cell
from pynas.spaces.nasbench201 import space


def cell(decisions: tuple[int, ...], channels: int, prune: bool) -> Cell:
    """The cell of an architecture; only its live edges if ``prune``."""
    live = space.live_edges(decisions) if prune else (True,) * len(decisions)
    operations = [(i, space.OPERATIONS[d]) for i, d in enumerate(decisions) if live[i]]
    return Cell(operations, channels)


class NASBench201Network(nn.Module):
    """Stem, three stages of cells with residual blocks between them, classifier."""

    def __init__(
        self,
        decisions: tuple[int, ...],
        *,
        channels: int,
        num_cells: int,
        num_classes: int,
        in_channels: int,
        prune: bool,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells = nn.Sequential()
        for width in (channels, 2 * channels, 4 * channels):
            if width > channels:
                self.cells.append(ResidualBlock(width // 2, width))
            for _ in range(num_cells):
                self.cells.append(cell(decisions, width, prune))
        self.lastact = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``; H and W multiples of 4."""
        if x.dim() != 4 or min(x.shape[2:]) < 4 or x.shape[2] % 4 or x.shape[3] % 4:
            raise UserError(
                "inputs: expected [B, C, H, W] with H and W positive multiples of 4 (the network halves them "
                f"twice), got {list(x.shape)}"
            )
        y = self.lastact(self.cells(self.stem(x)))
        return cast(Tensor, self.classifier(self.global_pooling(y).flatten(1)))
