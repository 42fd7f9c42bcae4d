"""The search network of DARTS.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019,
arXiv:1806.09055.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas._plural import counted
from pynas.nn.cell import Cell
from pynas.nn.genotype import Edges, Genotype, derive_edges
from pynas.nn.mixed_op import Save
from pynas.nn.supernet import Mixture, Supernet, check_positive, initial_logits
from pynas.ops.candidates import resolve


class DARTSSupernet(Supernet):
    """The search network of DARTS.

    Stem (3x3 convolution to ``3 * channels``, batch norm); ``num_cells`` cells, of which those at one and two
    thirds are reductions that double the channels; global average pooling, a linear classifier. State dicts
    of the authors' network load with ``strict=True``; they lack the logits, which then stay as they are.

    Args:
        channels: Channels of a node in the first cells, 16 in the paper.
        num_cells: Cells, 8 in the paper.
        num_classes: Number of classes.
        in_channels: Channels of images.
        nodes: Nodes of a cell, 4 in the paper.
        candidates: As in :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms of cells have a weight and a bias.
        save: What edges keep for backward, as in :class:`~pynas.nn.MixedOp`.
    """

    def __init__(
        self,
        channels: int = 16,
        num_cells: int = 8,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        nodes: int = 4,
        candidates: str | Sequence[str] = "darts",
        affine: bool = False,
        save: Save = "products",
    ) -> None:
        super().__init__()
        check_positive(channels=channels, num_cells=num_cells, num_classes=num_classes, nodes=nodes)
        self.candidates, _ = resolve(candidates, "darts", "DARTSSupernet")
        self.nodes = nodes
        before, previous = 3 * channels, 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, previous, 3, padding=1, bias=False), nn.BatchNorm2d(previous)
        )
        self.cells = nn.ModuleList()
        reduced = False
        for i in range(num_cells):
            reduction = i in (num_cells // 3, 2 * num_cells // 3)
            channels *= 2 if reduction else 1
            self.cells.append(
                Cell(
                    before,
                    previous,
                    channels,
                    reduction=reduction,
                    reduction_previous=reduced,
                    nodes=nodes,
                    candidates=self.candidates,
                    affine=affine,
                    save=save,
                )
            )
            before, previous, reduced = previous, nodes * channels, reduction
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        edges = sum(2 + j for j in range(nodes))
        self.alphas_normal = initial_logits(edges, len(self.candidates))
        self.alphas_reduce = initial_logits(edges, len(self.candidates))

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """``alphas_normal`` and ``alphas_reduce``."""
        return self.alphas_normal, self.alphas_reduce

    def derive(self) -> Genotype:
        """The two strongest edges of each node, each with its strongest operation other than ``none``."""
        cells = [torch.softmax(a.detach().double(), -1).tolist() for a in self.architecture_parameters()]
        return Genotype(*(derive_edges(cell, self.candidates) for cell in cells))

    def choose(self, architecture: Any) -> Mixture:
        """Zeros and ones that select a :class:`Genotype`."""
        if not isinstance(architecture, Genotype):
            raise ValueError(f"architecture: expected a Genotype, got {type(architecture).__name__}")
        return self._one_hot("normal", architecture.normal), self._one_hot("reduce", architecture.reduce)

    def _one_hot(self, name: str, edges: Edges) -> Tensor:
        weights = torch.zeros_like(self.alphas_normal)
        if not edges or len(edges) % self.nodes:
            raise ValueError(
                f"architecture: {name}: expected the same number of edges for each of "
                f"{counted(self.nodes, 'node')}, got {len(edges)} in all"
            )
        per_node = len(edges) // self.nodes
        for i, (operation, source) in enumerate(edges):
            node = i // per_node
            if operation not in self.candidates:
                known = ", ".join(self.candidates)
                raise ValueError(f"architecture: {name}: expected one of {known}, got {operation!r}")
            if not 0 <= source < 2 + node:
                raise ValueError(
                    f"architecture: {name}: node {node} has the sources 0 to {1 + node}, got {source}"
                )
            first = sum(2 + j for j in range(node))
            weights[first + source, self.candidates.index(operation)] += 1.0
        return weights

    def has_search_cells(self) -> bool:
        """True."""
        return True

    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, weights[1 if cell.reduction else 0])
        return cast(Tensor, self.classifier(self.global_pooling(s1).flatten(1)))
