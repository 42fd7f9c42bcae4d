"""Prepares a network and its data for scoring: precision, autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pynas._errors import UserError
from pynas.stats.data import map_tensors
from pynas.stats.state import preserved

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


def floating(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers of real floating-point numbers."""
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]


@contextmanager
def converted(model: nn.Module, dtype: torch.dtype, tensors: Sequence[Tensor]) -> Iterator[None]:
    """``model``, whose floating-point tensors are given, in this precision meanwhile; then as it was.

    Tensors made in inference mode, which autograd cannot save, need a copy instead.
    """
    if _are(tensors, dtype):
        yield
        return
    with preserved(model):
        _convert(model, dtype)
        yield


def _are(tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    return all(t.dtype == dtype for t in tensors)


def prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert ``model`` in place."""
    return model if _are(floating(model), dtype) else _convert(model, dtype)


def _convert(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    model._apply(_to(dtype))  # type: ignore[no-untyped-call]
    if dtype == torch.bfloat16:
        for module in model.modules():
            if isinstance(module, NORMALISATIONS):
                module.float()
    return model


def cast(inputs: Any, dtype: torch.dtype) -> Any:
    """Inputs in the network's precision, complex ones too; integers are not converted."""
    return map_tensors(_to(dtype), inputs)


def _to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Conversion to a precision, of complex numbers too; of integers none."""
    # Not model.to(dtype), which drops the imaginary parts of complex numbers.
    wide = dtype.to_complex() if dtype != torch.bfloat16 else torch.complex64

    def convert(t: Tensor) -> Tensor:
        return t.to(dtype if t.is_floating_point() else wide if t.is_complex() else t.dtype)

    return convert
