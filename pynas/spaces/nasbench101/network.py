"""The networks of NAS-Bench-101 in plain PyTorch modules; the only part of the space that imports torch.

Modules are named like the variable scopes of the authors' TensorFlow code: ``stem``,
``stack0.module0.vertex_1.projection``, ``stack0.module0.vertex_1.op``, ``stack0.module0.output.projection``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pynas.spaces.nasbench101.cell import OPERATIONS


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """``relu(BN(conv(x)))`` with stride 1; the convolution has no bias and is padded to keep the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    norm = nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.003)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU()))


def operation(name: str, channels: int) -> nn.Module:
    """The operation of a vertex, ``[N, channels, H, W]`` to the same shape."""
    if name == OPERATIONS[2]:
        return nn.MaxPool2d(3, stride=1, padding=1)
    return conv_bn_relu(channels, channels, 3 if name == OPERATIONS[0] else 1)


class Vertex(nn.Module):
    """``op(sum_s x_s[:channels] + projection(x_0))``; the projection only if ``reads_input``."""

    def __init__(self, name: str, in_channels: int, channels: int, reads_input: bool) -> None:
        super().__init__()
        self.channels = channels
        self.projection = conv_bn_relu(in_channels, channels, 1) if reads_input else None
        self.op = operation(name, channels)

    def forward(self, cell_input: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """The vertex's value; ``sources`` are the other vertices that it reads."""
        terms = [x if x.shape[1] == self.channels else x[:, : self.channels] for x in sources]
        if self.projection is not None:
            terms.append(self.projection(cell_input))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return cast(Tensor, self.op(total))


class Output(nn.Module):
    """``cat(x_s) + projection(x_0)``; the projection only if ``reads_input``."""

    def __init__(self, in_channels: int, channels: int, reads_input: bool) -> None:
        super().__init__()
        self.projection = conv_bn_relu(in_channels, channels, 1) if reads_input else None

    def forward(self, cell_input: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """The output of the cell."""
        parts = [torch.cat(list(sources), dim=1) if len(sources) > 1 else sources[0]] if sources else []
        if self.projection is not None:
            parts.append(self.projection(cell_input))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


class Cell(nn.Module):
    """A pruned cell: vertex ``t`` reads ``sources[t]`` and has ``channels[t]`` channels."""

    def __init__(
        self, sources: Sequence[Sequence[int]], operations: Sequence[str], channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.sources = tuple(tuple(s for s in read if s > 0) for read in sources)
        self.names = [*(f"vertex_{t}" for t in range(1, len(operations) - 1)), "output"]
        for t, name in enumerate(self.names, start=1):
            reads_input = 0 in sources[t]
            if name == "output":
                self.add_module(name, Output(channels[0], channels[t], reads_input))
            else:
                self.add_module(name, Vertex(operations[t], channels[0], channels[t], reads_input))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels[0], H, W]`` to ``[N, channels[-1], H, W]``."""
        values = [x]
        for t, name in enumerate(self.names, start=1):
            values.append(getattr(self, name)(x, [values[s] for s in self.sources[t]]))
        return values[-1]


class NASBench101Network(nn.Module):
    """Stem, stacks of cells with a 2x2 max pooling between them, classifier.

    Args:
        sources: For each vertex of the pruned cell, the vertices that it reads.
        operations: Name of each vertex.
        channels: ``channels[stack][cell][vertex]``.
        num_classes: Classes.
        in_channels: Channels of an image.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        operations: Sequence[str],
        channels: Sequence[Sequence[Sequence[int]]],
        *,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.stem = conv_bn_relu(in_channels, channels[0][0][0], 3)
        self.stacks = [f"stack{i}" for i in range(len(channels))]
        for name, cells in zip(self.stacks, channels, strict=True):
            stack = nn.Sequential()
            for i, vertex_channels in enumerate(cells):
                stack.add_module(f"module{i}", Cell(sources, operations, vertex_channels))
            self.add_module(name, stack)
        # Odd sizes round up, as with TensorFlow's padding.
        self.downsample = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels[-1][-1][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of images ``[B, in_channels, H, W]``."""
        y = self.stem(x)
        for i, name in enumerate(self.stacks):
            y = getattr(self, name)(self.downsample(y) if i > 0 else y)
        return cast(Tensor, self.classifier(self.global_pooling(y).flatten(1)))
