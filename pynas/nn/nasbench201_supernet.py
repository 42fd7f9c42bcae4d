"""The search network of NAS-Bench-201.

Source: X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020, arXiv:2001.00326.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.nn.cell import NASBench201Cell, ResidualBlock
from pynas.nn.mixed_op import Save
from pynas.nn.supernet import Mixture, Supernet, check_positive, initial_logits
from pynas.ops.candidates import resolve

_BIAS = re.compile(r"^cells\.\d+\.edges\.\d<-\d\.\d+\.op\.1\.bias$")
"""Of a convolution in a cell, in the authors' code."""


class NASBench201Supernet(Supernet):
    """The search network of NAS-Bench-201.

    Stem (3x3 convolution, batch norm); three stages of ``num_cells`` cells with 1, 2 and 4 times
    ``channels``, the second and third behind a residual block of stride 2; batch norm, ReLU, global average
    pooling, a linear classifier. Parameter names are those of the authors' ``TinyNetwork`` for searching.

    State dicts of that network load with ``strict=True``. Its convolutions in cells have a bias if their
    batch norms have none: a constant that the batch norm removes, so it is taken into the running mean and
    not kept.

    Args:
        channels: Channels of the first stage, 16 in the paper.
        num_cells: Cells in each stage, 5 in the paper.
        num_classes: Number of classes.
        in_channels: Channels of images.
        candidates: As in :class:`~pynas.nn.MixedOp`.
        affine: Whether batch norms of cells have a weight and a bias.
        track_running_stats: Whether batch norms of cells keep running statistics.
        save: What edges keep for backward, as in :class:`~pynas.nn.MixedOp`.
    """

    def __init__(
        self,
        channels: int = 16,
        num_cells: int = 5,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        candidates: str | Sequence[str] = "nasbench201",
        affine: bool = False,
        track_running_stats: bool = True,
        save: Save = "products",
    ) -> None:
        super().__init__()
        check_positive(channels=channels, num_cells=num_cells, num_classes=num_classes)
        self.candidates, _ = resolve(candidates, "nasbench201", "NASBench201Supernet")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells = nn.ModuleList()
        for width in (channels, 2 * channels, 4 * channels):
            if width > channels:
                self.cells.append(ResidualBlock(width // 2, width))
            for _ in range(num_cells):
                self.cells.append(
                    NASBench201Cell(
                        width,
                        candidates=self.candidates,
                        affine=affine,
                        track_running_stats=track_running_stats,
                        save=save,
                    )
                )
        self.lastact = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * channels, num_classes)
        self.arch_parameters = initial_logits(len(NASBench201Cell.edge_list), len(self.candidates))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {prefix + name for name in self.state_dict()}
        for name in [name for name in state_dict if _BIAS.search(name.removeprefix(prefix))]:
            weight = f"{name.removesuffix('bias')}weight"
            mean = f"{name.removesuffix('1.bias')}2.running_mean"
            if name in own or weight not in own or not name.startswith(prefix):
                continue
            bias = state_dict.pop(name)
            if mean in state_dict:
                state_dict[mean] = state_dict[mean] - bias
        super()._load_from_state_dict(state_dict, prefix, *args)

    def architecture_parameters(self) -> tuple[nn.Parameter, ...]:
        """``arch_parameters``."""
        return (self.arch_parameters,)

    def derive(self) -> Architecture:
        """The strongest operation of each edge; decisions are positions in the space's five operations."""
        names, _ = resolve("nasbench201")
        best = self.arch_parameters.detach().argmax(1).tolist()
        return Architecture("nasbench201", tuple(names.index(self.candidates[k]) for k in best))

    def choose(self, architecture: Any) -> Mixture:
        """Zeros and ones that select an :class:`~pynas.Architecture` of the space ``nasbench201``."""
        if not isinstance(architecture, Architecture) or architecture.space != "nasbench201":
            raise ValueError(f"architecture: expected an Architecture of nasbench201, got {architecture!r}")
        names, _ = resolve("nasbench201")
        weights = torch.zeros_like(self.arch_parameters)
        if len(architecture.decisions) != len(weights):
            raise ValueError(
                f"architecture: expected {counted(len(weights), 'decision')}, "
                f"got {len(architecture.decisions)}"
            )
        for edge, decision in enumerate(architecture.decisions):
            if not 0 <= decision < len(names) or names[decision] not in self.candidates:
                raise ValueError(f"architecture: decision {decision} is none of {', '.join(self.candidates)}")
            weights[edge, self.candidates.index(names[decision])] = 1.0
        return (weights,)

    def has_search_cells(self) -> bool:
        """True."""
        return True

    def _run(self, x: Tensor, weights: Mixture) -> Tensor:
        y = self.stem(x)
        for cell in self.cells:
            y = cell(y, weights[0]) if isinstance(cell, NASBench201Cell) else cell(y)
        return cast(Tensor, self.classifier(self.global_pooling(self.lastact(y)).flatten(1)))
