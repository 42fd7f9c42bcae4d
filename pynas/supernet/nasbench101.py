"""The supernet of NAS-Bench-101: layers of maximum width, of which a cell uses the first channels.

Source of the cells: C. Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML
2019, arXiv:1902.09635; supernets of them: Y. Zhang, Q. Zhang, Y. Yang, "How Does Weight Sharing Help in
Neural Architecture Search?", arXiv:2010.08219.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.spaces import NASBench101
from pynas.spaces.base import check_positive
from pynas.spaces.nasbench101.cell import INTERIOR, OPERATIONS
from pynas.spaces.nasbench101.network import conv_bn_relu, operation
from pynas.supernet._base import Segment, SharedWeights, channels_last, without_affine


class NASBench101Supernet(SharedWeights):
    r"""Layers for all cells of NAS-Bench-101; a vertex with c channels uses the first c of its layers.

    For vertices 1 to 5, each cell of the network has a projection of the cell's input, a 3x3 and a 1x1
    convolution, all as wide as the cell's output, the maximum for a vertex; and it has a projection to the
    output. Vertex t with c_t channels runs ``relu(BN(W[:c_t, :c_in] * x))``, BN with its first c_t means,
    variances, weights and biases; c_in is c_t for an operation, the channels of the cell's input for a
    projection. Sums, truncation and concatenation are those of :class:`~pynas.spaces.NASBench101`. So logits
    equal those of the space's own network with these slices as its weights.

    Vertices are numbered as in that network, after pruning: architectures that differ only in unused parts
    run the same layers. The order of vertices matters. Training with ``space.sample`` sees every cell only in
    its :meth:`~pynas.spaces.NASBench101.canonical` order, so evaluate cells in this order.

    If a training step uses some channels of a layer, the others have gradient zero, but weight decay and
    momentum still change them. Layers that it does not use at all remain unchanged.

    Args:
        space: The space; if None, ``nasbench101`` as published.
        num_classes: Number of classes.
        in_channels: Channels of images.
        affine: Whether batch norms have a weight and a bias.
    """

    def __init__(
        self,
        space: NASBench101 | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.space: NASBench101 = NASBench101() if space is None else space
        if not isinstance(self.space, NASBench101):
            raise UserError(f"space: expected nasbench101, got {self.space.name}")
        check_positive(num_classes=num_classes, in_channels=in_channels)
        self.stem = conv_bn_relu(in_channels, self.space.channels, 3)
        self.stacks: list[str] = []
        before = self.space.channels
        for i in range(self.space.num_stacks):
            after = self.space.channels << i
            widths = [before, *[after] * (self.space.num_cells - 1)]
            self.stacks.append(f"stack{i}")
            self.add_module(f"stack{i}", nn.ModuleList(WidestCell(width, after) for width in widths))
            before = after
        self.downsample = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self._modules["classifier"] = nn.Linear(before, num_classes)
        if not affine:
            without_affine(self)

    def segments(self, arch: Architecture) -> tuple[Segment, ...]:
        """Stem, cells (the first of a stack with its pooling), head; the key of a cell is the pruned cell."""
        rows, operations = self.space.matrix(arch)
        vertices = range(len(rows))
        wiring = Wiring(tuple(tuple(s for s in range(t) if rows[s][t]) for t in vertices), operations)
        found = [Segment("stem", lambda x: self.stem(channels_last(x)), (self.stem,))]
        for i, name in enumerate(self.stacks):
            for j, cell in enumerate(cast(nn.ModuleList, getattr(self, name))):
                assert isinstance(cell, WidestCell)
                run = partial(self._run, cell, wiring, i > 0 and j == 0)
                found.append(Segment((i, j, wiring), run, cell.layers(wiring)))

        def head(x: Tensor) -> Any:
            return self.classifier()(self.global_pooling(x).flatten(1))

        return (*found, Segment("head", head, (self.classifier(),)))

    def _run(self, cell: WidestCell, wiring: Wiring, pooled: bool, x: Tensor) -> Tensor:
        return cast(Tensor, cell(self.downsample(x) if pooled else x, wiring))

    def classifier(self) -> nn.Linear:
        """``classifier``."""
        return cast(nn.Linear, self._modules["classifier"])

    def _replace_classifier(self, layer: nn.Linear) -> None:
        self._modules["classifier"] = layer


@dataclass(frozen=True)
class Wiring:
    """A pruned cell: the vertices that each vertex reads, ascending, and its operation."""

    sources: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]

    def channels(self, out: int) -> list[int]:
        """Channels of vertices 1, 2, ... and the output, which has ``out``; see :class:`NASBench101`."""
        last = len(self.sources) - 1
        found = [0] * last + [out]
        joined = [s for s in self.sources[last] if s > 0]
        for place, vertex in enumerate(joined):
            share, left = divmod(out, len(joined))
            found[vertex] = share + (place < left)
        for vertex in range(last - 1, 0, -1):
            if not found[vertex]:
                found[vertex] = max(found[t] for t in range(vertex + 1, last) if vertex in self.sources[t])
        return found[1:]


class WidestCell(nn.Module):
    """All layers of one cell, ``in_channels`` to ``channels``: the maximum of vertices and output."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        for vertex in range(1, INTERIOR + 1):
            layers: dict[str, nn.Module] = {"projection": conv_bn_relu(in_channels, channels, 1)}
            layers |= {name: operation(name, channels) for name in OPERATIONS}
            self.add_module(f"vertex_{vertex}", nn.ModuleDict(layers))
        self.add_module("output", nn.ModuleDict({"projection": conv_bn_relu(in_channels, channels, 1)}))

    def forward(self, x: Tensor, wiring: Wiring) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, channels, H, W]``."""
        values = [x]
        *interior, out = enumerate(wiring.channels(self.channels), start=1)
        for vertex, width in interior:
            terms = [values[s][:, :width] for s in wiring.sources[vertex] if s > 0]
            total = _sum(terms + self._projected(f"vertex_{vertex}", x, width, wiring.sources[vertex]))
            layer = self._layer(f"vertex_{vertex}", wiring.operations[vertex])
            values.append(layer(total) if isinstance(layer, nn.MaxPool2d) else _first(layer, total, width))
        vertex, width = out
        joined = [values[s] for s in wiring.sources[vertex] if s > 0]
        return _sum(
            ([torch.cat(joined, dim=1)] if joined else [])
            + self._projected("output", x, width, wiring.sources[vertex])
        )

    def _projected(self, name: str, x: Tensor, width: int, sources: Sequence[int]) -> list[Tensor]:
        return [_first(self._layer(name, "projection"), x, width)] if 0 in sources else []

    def layers(self, wiring: Wiring) -> tuple[nn.Module, ...]:
        """The layers that the cell of ``wiring`` runs."""
        last = len(wiring.sources) - 1
        found = []
        for vertex in range(1, last + 1):
            name = "output" if vertex == last else f"vertex_{vertex}"
            found += [self._layer(name, "projection")] if 0 in wiring.sources[vertex] else []
            found += [self._layer(name, wiring.operations[vertex])] if vertex < last else []
        return tuple(found)

    def _layer(self, vertex: str, name: str) -> nn.Module:
        return cast(nn.ModuleDict, getattr(self, vertex))[name]


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _first(layer: nn.Module, x: Tensor, channels: int) -> Tensor:
    """The first ``channels`` of convolution, batch norm and ReLU, on as many input channels as ``x`` has."""
    conv, norm = cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn)
    y = F.conv2d(x, conv.weight[:channels, : x.shape[1]], padding=cast(tuple[int, int], conv.padding))
    mean, variance, weight, bias = (
        None if tensor is None else tensor[:channels]
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    momentum = norm.momentum
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # a plain mean over batches
            momentum = 1 / float(norm.num_batches_tracked)
    return F.relu(F.batch_norm(y, mean, variance, weight, bias, norm.training, momentum or 0.0, norm.eps))
