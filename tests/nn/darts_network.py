"""The search network of DARTS as its authors lay it out, with loops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pynas.nn import LoopMixedOp
from pynas.nn.candidates import FactorizedReduce, NormOptions, ReLUConvBN


class LoopCell(nn.Module):
    def __init__(self, before: int, previous: int, c: int, reduction: bool, reduced: bool) -> None:
        super().__init__()
        self.reduction = reduction
        norm = NormOptions()
        self.preprocess0 = FactorizedReduce(before, c, norm) if reduced else ReLUConvBN(before, c, 1, 1, norm)
        self.preprocess1 = ReLUConvBN(previous, c, 1, 1, norm)
        self._ops = nn.ModuleList()
        self._bns = nn.ModuleList()
        for node in range(4):
            for source in range(2 + node):
                self._ops.append(LoopMixedOp(c, "darts", 2 if reduction and source < 2 else 1))

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(4):
            states.append(sum(self._ops[offset + j](h, weights[offset + j]) for j, h in enumerate(states)))
            offset += len(states) - 1
        return torch.cat(states[2:], dim=1)


class LoopNetwork(nn.Module):
    """Its logits are plain tensors, so its state dict has none."""

    def __init__(self, c: int, num_classes: int, layers: int) -> None:
        super().__init__()
        before = previous = 3 * c
        self.stem = nn.Sequential(nn.Conv2d(3, previous, 3, padding=1, bias=False), nn.BatchNorm2d(previous))
        self.cells = nn.ModuleList()
        reduced = False
        for i in range(layers):
            reduction = i in [layers // 3, 2 * layers // 3]
            c = 2 * c if reduction else c
            self.cells.append(LoopCell(before, previous, c, reduction, reduced))
            before, previous, reduced = previous, 4 * c, reduction
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        self.alphas_normal = 1e-3 * torch.randn(14, 8)
        self.alphas_reduce = 1e-3 * torch.randn(14, 8)

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            alphas = self.alphas_reduce if cell.reduction else self.alphas_normal
            s0, s1 = s1, cell(s0, s1, alphas.softmax(-1))
        return self.classifier(self.global_pooling(s1).flatten(1))
