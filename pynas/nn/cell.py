"""Search cells: graphs whose edges are mixed operations.

Sources: H. Liu, K. Simonyan, Y. Yang, "DARTS", ICLR 2019, arXiv:1806.09055; X. Dong, Y. Yang,
"NAS-Bench-201", ICLR 2020, arXiv:2001.00326. Parameter names are those of their authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pynas.nn.candidates import FactorizedReduce, NormOptions, ReLUConvBN
from pynas.nn.mixed_op import MixedOp, Save


def _live(weights: Tensor) -> list[bool]:
    """Which rows have a nonzero weight; all of them where reading values would wait or break a graph."""
    if torch.compiler.is_compiling() or weights.device.type != "cpu":
        return [True] * len(weights)
    return cast(list[bool], (weights.detach() != 0).any(1).tolist())


def _node(edges: Iterable[tuple[nn.Module, Tensor, Tensor, bool]]) -> Tensor:
    """The sum of ``edge(source, weights)`` over the live edges into a node; zeros if none is live."""
    chosen = list(edges)
    live = [edge for edge in chosen if edge[3]] or chosen[:1]
    total: Tensor | None = None
    for edge, source, weights, _ in live:
        y = edge(source, weights)
        total = y if total is None else total + y
    assert total is not None
    return total


class Cell(nn.Module):
    """The search cell of DARTS: ``x_j = sum_{i<j} edge_{i,j}(x_i)`` for ``nodes`` nodes after two inputs.

    The output is the concatenation of the nodes. Each input passes a ReLU, a 1x1 convolution and a batch norm
    first; after a reduction cell the older input is a factorised reduction. In a reduction cell the edges
    from the inputs have stride 2.

    Args:
        channels_before_previous: Channels of ``s0``.
        channels_previous: Channels of ``s1``.
        channels: Channels of each node.
        reduction: Whether the cell halves height and width.
        reduction_previous: Whether the previous cell did.
        nodes: Nodes between the inputs and the output.
        candidates: As in :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms have a weight and a bias.
        save: What edges keep for backward, as in :class:`~pynas.nn.MixedOp`.
    """

    def __init__(
        self,
        channels_before_previous: int,
        channels_previous: int,
        channels: int,
        *,
        reduction: bool = False,
        reduction_previous: bool = False,
        nodes: int = 4,
        candidates: str | Sequence[str] = "darts",
        affine: bool = False,
        save: Save = "products",
    ) -> None:
        super().__init__()
        norm = NormOptions(affine)
        self.reduction = reduction
        self.nodes = nodes
        self.preprocess0 = (
            FactorizedReduce(channels_before_previous, channels, norm)
            if reduction_previous
            else ReLUConvBN(channels_before_previous, channels, 1, 1, norm)
        )
        self.preprocess1 = ReLUConvBN(channels_previous, channels, 1, 1, norm)
        self._ops = nn.ModuleList(
            MixedOp(
                channels,
                candidates,
                2 if reduction and source < 2 else 1,
                family="darts",
                affine=affine,
                save=save,
            )
            for source, _ in self.edges
        )

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of each edge, in order of target; 0 and 1 are the inputs."""
        return tuple((source, 2 + j) for j in range(self.nodes) for source in range(2 + j))

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """``[N, nodes * channels, H', W']`` of both inputs and ``weights`` [edges, candidates]."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        rows, live = weights.unbind(), _live(weights)
        for target in range(2, 2 + self.nodes):
            states.append(
                _node(
                    (self._ops[e], states[i], rows[e], live[e])
                    for e, (i, j) in enumerate(self.edges)
                    if j == target
                )
            )
        return torch.cat(states[2:], dim=1)


class NASBench201Cell(nn.Module):
    """The search cell of NAS-Bench-201: ``x_j = sum_{i<j} edge_{i,j}(x_i)`` for three nodes after the input.

    Args:
        channels: Channels of input, nodes and output (the last node).
        candidates: As in :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms have a weight and a bias.
        track_running_stats: Whether batch norms keep running statistics.
        save: What edges keep for backward, as in :class:`~pynas.nn.MixedOp`.
    """

    edge_list = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    """(source, target), in the order of the space's strings and of the rows of ``weights``."""

    def __init__(
        self,
        channels: int,
        *,
        candidates: str | Sequence[str] = "nasbench201",
        affine: bool = False,
        track_running_stats: bool = True,
        save: Save = "products",
    ) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{j}<-{i}": MixedOp(
                    channels,
                    candidates,
                    family="nasbench201",
                    affine=affine,
                    track_running_stats=track_running_stats,
                    save=save,
                    holder="",
                )
                for i, j in self.edge_list
            }
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``[N, channels, H, W]`` of an input of that shape and ``weights`` [6, candidates]."""
        states = [x]
        rows, live = weights.unbind(), _live(weights)
        for target in range(1, 4):
            states.append(
                _node(
                    (self.edges[f"{j}<-{i}"], states[i], rows[e], live[e])
                    for e, (i, j) in enumerate(self.edge_list)
                    if j == target
                )
            )
        return states[-1]


class ResidualBlock(nn.Module):
    """The reduction of NAS-Bench-201: ``BN(conv3x3(relu BN(conv3x3(relu x)))) + conv1x1(mean2x2 x)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        norm = NormOptions(affine=True)
        self.conv_a = ReLUConvBN(in_channels, out_channels, 3, 2, norm)
        self.conv_b = ReLUConvBN(out_channels, out_channels, 3, 1, norm)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, out_channels, H / 2, W / 2]``."""
        return cast(Tensor, self.downsample(x) + self.conv_b(self.conv_a(x)))
