"""Functional calls that a forward pass without gradients runs faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor

from pynas.nn.nasbench201_cell import run_cell
from pynas.stats import _fast
from pynas.stats.nasbench201.rule import forward_cell

FORWARDS: Final[Mapping[Callable[..., Any], Callable[..., Tensor | None]]] = {
    F.conv2d: _fast.conv2d,
    run_cell: forward_cell,
}
"""In train mode, tracked statistics of batch norms included; None where one does not take the arguments."""
