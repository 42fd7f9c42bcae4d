"""Prepares a network and its data for scoring: precision, memory layout, autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pynas._errors import UserError

Precision = Literal["float32", "bfloat16", "float64"]
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# With bfloat16 activations, batch statistics stay in float32, and so do scales and shifts of batch norms.
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@contextmanager
def autograd() -> Iterator[None]:
    """Context in which autograd works, even if the caller, such as a validation loop, switched it off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def dtype_of(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def wants_channels_last(model: nn.Module) -> bool:
    """Whether to convert ``model`` to channels_last, in which convolutions run faster on CPU and GPU.

    In this layout :class:`pynas.ops.StridedConvolutions` has to intercept convolutions, which is impossible
    for those that TorchScript compiled: such a model keeps its layout.
    """
    modules = list(model.modules())
    if any(isinstance(m, torch.jit.ScriptModule) for m in modules):
        return False
    return any(isinstance(m, nn.Conv2d) and m.in_channels > 4 for m in modules)


def floating(model: nn.Module) -> list[Tensor]:
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]


def needs_copy(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether probes need another dtype or layout, or weights that autograd can save."""
    return any(t.dtype != dtype or t.is_inference() for t in floating(model)) or wants_channels_last(model)


def prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert ``model`` in place."""
    if any(t.dtype != dtype for t in floating(model)):
        model = model.to(dtype)
    modules = list(model.modules())
    if dtype == torch.bfloat16:
        for module in modules:
            if isinstance(module, NORMALISATIONS):
                module.float()
    if wants_channels_last(model):
        for module in modules:
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def cast(inputs: Any, dtype: torch.dtype, channels_last: bool) -> Any:
    """Inputs in the network's precision and layout; integers are not converted."""

    def one(x: Tensor) -> Tensor:
        x = x.to(dtype) if x.is_floating_point() else x
        return x.contiguous(memory_format=torch.channels_last) if channels_last and x.dim() == 4 else x

    return pytree.tree_map_only(Tensor, one, inputs)
