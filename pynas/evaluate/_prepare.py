"""Prepares a network and its data for scoring: precision, autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pynas._errors import UserError
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
    return [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]


@contextmanager
def converted(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """``model`` in this precision meanwhile, and as it was afterwards.

    Tensors made in inference mode, which autograd cannot save, need a copy instead.
    """
    with nullcontext() if _has(model, dtype) else preserved(model):
        prepared(model, dtype)
        yield


def _has(model: nn.Module, dtype: torch.dtype) -> bool:
    return all(t.dtype == dtype for t in floating(model))


def prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert ``model`` in place."""
    if _has(model, dtype):
        return model
    # Not model.to(dtype), which drops the imaginary parts of complex numbers.
    wide = dtype.to_complex() if dtype != torch.bfloat16 else torch.complex64

    def convert(t: Tensor) -> Tensor:
        return t.to(dtype if t.is_floating_point() else wide if t.is_complex() else t.dtype)

    model._apply(convert)  # type: ignore[no-untyped-call]
    if dtype == torch.bfloat16:
        for module in model.modules():
            if isinstance(module, NORMALISATIONS):
                module.float()
    return model


def cast(inputs: Any, dtype: torch.dtype) -> Any:
    """Inputs in the network's precision; integers are not converted."""
    return pytree.tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs)
