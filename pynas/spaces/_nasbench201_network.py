"""The networks of NAS-Bench-201 in plain PyTorch modules; the only part of the space that imports torch.

Module names (``stem``, ``cells.N.layers.M.op``, ``conv_a``, ``conv_b``, ``downsample``, ``lastact``,
``classifier``) are those of the authors' code, so that published state dicts load.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from pynas._errors import UserError
from pynas.spaces import _nasbench201_probe
from pynas.spaces import nasbench201 as space


class ReLUConvBN(nn.Module):
    """``BN(conv(relu(x)))``, the convolution without bias and padded to keep the size at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.op(x))


class AveragePool(nn.Module):
    """3x3 mean over the pixels inside the image."""

    def __init__(self) -> None:
        super().__init__()
        self.op = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.op(x))


class Zero(nn.Module):
    """``0 x``: the graph stays connected, so that what comes before has a gradient of zeros and not None."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)


def operation(decision: int, channels: int) -> nn.Module:
    """The module of one edge."""
    if decision == space.NONE:
        return Zero()
    if decision == space.SKIP:
        return nn.Identity()
    if decision == space.AVG_POOL:
        return AveragePool()
    return ReLUConvBN(channels, channels, 1 if decision == space.CONV_1X1 else 3)


class Cell(nn.Module):
    """``x_t = sum_{s<t} op_{s,t}(x_s)``; ``layers.i`` is the operation on edge ``i`` of the space.

    Pruned, the keys of ``layers`` have gaps; a node without live edges is never read, and a cell without any
    gives zeros.
    """

    def __init__(self, decisions: tuple[int, ...], channels: int, prune: bool) -> None:
        super().__init__()
        live = space.live_edges(decisions) if prune else (True,) * len(decisions)
        self.layers = nn.ModuleDict(
            {str(i): operation(decision, channels) for i, decision in enumerate(decisions) if live[i]}
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


class ResidualBlock(nn.Module):
    """Stride-2 reduction: two ReLU-conv3x3-BN beside an average pool and a bare 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(in_channels, out_channels, 3, stride=2)
        self.conv_b = ReLUConvBN(out_channels, out_channels, 3)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.downsample(x) + self.conv_b(self.conv_a(x)))


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
