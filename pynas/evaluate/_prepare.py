"""What happens to a network and its data before they are scored: precision, memory layout, autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pynas._errors import UserError

Precision = Literal["float32", "bfloat16", "float64"]
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# Statistics of a batch stay in float32 beside bfloat16 activations; so do the scales and shifts that go
# with them.
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@contextmanager
def autograd() -> Iterator[None]:
    """Autograd works inside, whatever the caller's mode: validation loops switch it off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def dtype_of(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def wants_channels_last(model: nn.Module) -> bool:
    """Convolutions run faster with channels innermost, on CPU and GPU, as soon as there are some.

    Nobody can intercept the convolutions that TorchScript compiled, as :class:`pynas.ops.StridedConvolutions`
    has to in this layout: such a model keeps its own.
    """
    modules = list(model.modules())
    if any(isinstance(m, torch.jit.ScriptModule) for m in modules):
        return False
    return any(isinstance(m, nn.Conv2d) and m.in_channels > 4 for m in modules)


def floating(model: nn.Module) -> list[Tensor]:
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]


def needs_copy(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether probes want another dtype or layout, or weights that autograd may save."""
    return any(t.dtype != dtype or t.is_inference() for t in floating(model)) or wants_channels_last(model)


def prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast ``model``, which is the caller's own, in place."""
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
    """Inputs in the network's precision and layout; integers stay what they are."""
    if isinstance(inputs, Tensor):
        x = inputs.to(dtype) if inputs.is_floating_point() else inputs
        return x.contiguous(memory_format=torch.channels_last) if channels_last and x.dim() == 4 else x
    if isinstance(inputs, dict):
        return {k: cast(v, dtype, channels_last) for k, v in inputs.items()}
    return type(inputs)(cast(v, dtype, channels_last) for v in inputs)
