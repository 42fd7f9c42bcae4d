"""Parameters and multiply-adds of any model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pynas._errors import UserError
from pynas.stats import Statistic
from pynas.stats.data import call_model, cut, writable
from pynas.stats.state import check_initialised, preserved


def params(model: nn.Module) -> int:
    """Number of parameters; shared ones count once. UserError where some wait for a first batch."""
    check_initialised(model)
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-adds of one sample's forward pass: convolutions, matrix products and attention.

    A multiply-add counts as one; normalisation, activation, pooling and sums do not count. The field's tables
    call this FLOPs. It is half of what PyTorch's counter reports for a pass of the first sample.

    Args:
        model: Any module; it stays unchanged.
        inputs: A batch for it: tensor [B, ...], or a tuple or dictionary of tensors.
    """
    return sum(macs_by_operator(model, inputs).values())


def macs_by_operator(model: nn.Module, inputs: Any) -> dict[str, int]:
    """The same, by the name of the ATen operator."""
    with preserved(model), torch.no_grad():
        model.eval()
        first = writable(cut(inputs, 0, 1))
        try:
            with FlopCounterMode(display=False) as counter:
                call_model(model, first)
        except RuntimeError as error:
            if "_will_engine_execute_node" not in str(error):
                raise
            raise UserError(
                "model: its forward differentiates itself (torch.autograd.grad), whose operations PyTorch's "
                "counter cannot count"
            ) from error
    counts = counter.get_flop_counts().get("Global", {})
    return {str(getattr(operator, "__name__", operator)): flops // 2 for operator, flops in counts.items()}


@dataclass(frozen=True)
class ParameterCount(Statistic[int]):
    """Numbers of parameters, by name."""

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, int]:
        """Sizes of all parameters."""
        check_initialised(model)
        return {name: math.prod(p.shape) for name, p in model.named_parameters()}


@dataclass(frozen=True)
class MacCount(Statistic[int]):
    """Multiply-adds of one sample, by operator."""

    needs_pass: ClassVar[bool] = False
    successive: ClassVar[bool] = True

    def observe_model(self, model: nn.Module, inputs: Any) -> dict[str, int]:
        """Counts of one forward pass."""
        return macs_by_operator(model, inputs)
