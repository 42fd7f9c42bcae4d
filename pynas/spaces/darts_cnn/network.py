"""The networks of DARTS in plain PyTorch modules.

Module names (``stem``, ``stem0``, ``stem1``, ``cells.N.preprocess0``, ``cells.N._ops.M``, ``auxiliary_head``,
``classifier``) are those of the authors' code, so that published state dicts load.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, cat, nn

from pynas._errors import UserError
from pynas.nn.candidates import FactorizedReduce, NormOptions, ReLUConvBN, candidate
from pynas.nn.genotype import Edges, Genotype
from pynas.spaces.darts_cnn.counts import AUXILIARY_WIDTHS, CellShape, Skeleton


class Cell(nn.Module):
    """``s_i = op_a(s_j) + op_b(s_k)`` with j, k < i; the output concatenates all nodes."""

    def __init__(self, edges: Edges, shape: CellShape) -> None:
        super().__init__()
        norm = NormOptions(affine=True)
        c = shape.channels
        self.preprocess0 = (
            FactorizedReduce(shape.before, c, norm)
            if shape.reduction_previous
            else ReLUConvBN(shape.before, c, 1, 1, norm)
        )
        self.preprocess1 = ReLUConvBN(shape.previous, c, 1, 1, norm)
        self._ops = nn.ModuleList(
            _operation(name, c, 2 if shape.reduction and source < 2 else 1) for name, source in edges
        )
        self.sources = tuple(source for _, source in edges)

    def forward(self, s0: Tensor, s1: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        """``[N, 4 C, H', W']``."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for i in range(0, len(self.sources), 2):
            a, b = (self._path(j, states[self.sources[j]], drop_path_prob) for j in (i, i + 1))
            states.append(a + b)
        return cat(states[2:], dim=1)

    def _path(self, j: int, x: Tensor, drop_path_prob: float) -> Tensor:
        operation = self._ops[j]
        y: Tensor = operation(x)
        if not self.training or drop_path_prob == 0 or isinstance(operation, nn.Identity):
            return y
        keep = 1 - drop_path_prob
        return y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    """As in the authors' evaluation networks: no batch norm after a pool, the others affine."""
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride=stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
    return candidate(name, "darts", channels, stride, affine=True)


class AuxiliaryHead(nn.Module):
    """Logits from the middle of the network, designed for 8 x 8 pixels (7 x 7 on ImageNet).

    For larger images, which the authors' head does not accept, it averages over positions.
    """

    def __init__(self, in_channels: int, num_classes: int, skeleton: Skeleton) -> None:
        super().__init__()
        first, second = AUXILIARY_WIDTHS
        self.smallest = 5 + skeleton.auxiliary_stride
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=skeleton.auxiliary_stride, count_include_pad=False),
            nn.Conv2d(in_channels, first, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 2, bias=False),
            *([] if skeleton.imagenet else [nn.BatchNorm2d(second)]),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(second, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, num_classes]``."""
        if min(x.shape[2:]) < self.smallest:
            raise UserError(
                f"inputs: the auxiliary head needs {self.smallest} x {self.smallest} pixels after the second "
                f"reduction, got {x.shape[2]} x {x.shape[3]}; give larger images or auxiliary=False"
            )
        return cast(Tensor, self.classifier(self.features(x).mean((2, 3))))


class DARTSNetwork(nn.Module):
    """Stem, cells, classifier and, if requested, an auxiliary head.

    Attributes:
        drop_path_prob: Current probability of dropping a path, drawn per sample; identity paths are never
            dropped. :meth:`schedule_drop_path` sets it.
    """

    def __init__(
        self,
        genotype: Genotype,
        skeleton: Skeleton,
        *,
        num_classes: int,
        in_channels: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.drop_path_prob = 0.0
        stem = [
            nn.Conv2d(a, b, 3, 1 + skeleton.imagenet, 1, bias=False) for a, b in skeleton.stem(in_channels)
        ]
        norms = [nn.BatchNorm2d(convolution.out_channels) for convolution in stem]
        self.imagenet = skeleton.imagenet
        if skeleton.imagenet:
            self.stem0 = nn.Sequential(stem[0], norms[0], nn.ReLU(), stem[1], norms[1])
            self.stem1 = nn.Sequential(nn.ReLU(), stem[2], norms[2])
        else:
            self.stem = nn.Sequential(stem[0], norms[0])
        self.cells = nn.ModuleList()
        width = auxiliary_width = 0
        for i, shape in enumerate(skeleton.cells()):
            self.cells.append(Cell(genotype.reduce if shape.reduction else genotype.normal, shape))
            width = 4 * shape.channels
            auxiliary_width = width if i == skeleton.auxiliary_cell else auxiliary_width
        self.auxiliary_cell = skeleton.auxiliary_cell if skeleton.auxiliary else None
        if skeleton.auxiliary:
            self.auxiliary_head = AuxiliaryHead(auxiliary_width, num_classes, skeleton)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)

    def schedule_drop_path(self, progress: float) -> None:
        """``drop_path_prob = drop_path * progress``; ``progress`` goes from 0 to 1 in training."""
        if not 0 <= progress <= 1:
            raise UserError(f"progress: expected a number in [0, 1], got {progress!r}")
        self.drop_path_prob = self.drop_path * progress

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits ``[N, num_classes]``; in train mode with an auxiliary head, (logits, auxiliary logits)."""
        if self.imagenet:
            s0 = self.stem0(x)
            s1 = self.stem1(s0)
        else:
            s0 = s1 = self.stem(x)
        auxiliary = None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path_prob)
            if i == self.auxiliary_cell and self.training:
                auxiliary = self.auxiliary_head(s1)
        logits = cast(Tensor, self.classifier(self.global_pooling(s1).flatten(1)))
        return logits if auxiliary is None else (logits, auxiliary)
