"""The networks of NAS-Bench-201 in plain PyTorch modules; the only part of the space that imports torch.

Module names (``stem``, ``cells.N.layers.M.op``, ``conv_a``, ``conv_b``, ``downsample``, ``lastact``,
``classifier``) are those of the authors' code, so that published state dicts load.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from pynas._errors import UserError
from pynas.nn.candidates import candidate
from pynas.nn.cell import ResidualBlock
from pynas.spaces import _nasbench201_probe
from pynas.spaces import nasbench201 as space


class Cell(nn.Module):
    """``x_t = sum_{s<t} op_{s,t}(x_s)``; ``layers.i`` is the operation on edge ``i`` of the space.

    Pruned, the keys of ``layers`` have gaps; a node without live edges is never read, and a cell without any
    gives zeros.
    """

    def __init__(self, decisions: tuple[int, ...], channels: int, prune: bool) -> None:
        super().__init__()
        live = space.live_edges(decisions) if prune else (True,) * len(decisions)
        self.layers = nn.ModuleDict(
            {
                str(i): candidate(space.OPERATIONS[decision], "nasbench201", channels, affine=True)
                for i, decision in enumerate(decisions)
                if live[i]
            }
        )
        self.edges = tuple((str(i), *space.EDGES[i]) for i in range(len(decisions)) if live[i])

    def forward(self, x: Tensor) -> Tensor:
        return run_cell(x, self)

    def by_module(self, x: Tensor) -> Tensor:
        """The output node, one operation after the other."""
        nodes = {0: x}
        for key, source, target in self.edges:
            y = self.layers[key](nodes[source])
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[3] if 3 in nodes else x.mul(0.0)


def run_cell(x: Tensor, cell: Cell) -> Tensor:
    """``cell(x)`` as a functional call, for which a probing pass has a rule of its own."""
    if has_torch_function_unary(x):
        return handle_torch_function(run_cell, (x,), x, cell)
    return cell.by_module(x)


_nasbench201_probe.register(run_cell)


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
                self.cells.append(Cell(decisions, width, prune))
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
