"""Each style of mixed operation with what it is called with, and how it is swapped and run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from mixed_op_classes import (
    CellOfLists,
    DictChoice,
    DropoutMixture,
    GrowingMixture,
    MixedPrimitives,
    NamedLayers,
    PartialMixture,
    Primitive,
    TwoForwards,
    darts_candidates,
)
from torch import Tensor, nn

from pynas.nn import replace_mixed_ops

ALL = [True] * 8


@dataclass(frozen=True)
class Style:
    make: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    fused: int
    plain: tuple[str, ...] = ()
    method: str = "forward"
    arguments: Callable[[Tensor], tuple[Any, ...]] = lambda w: (w,)
    channels: int = 8
    strides: tuple[int, ...] = (1, 2)


def primitives(c: int, stride: int) -> list[nn.Module]:
    return [Primitive(op) for op in darts_candidates(c, stride).values()]


STYLES = {
    "lists of a cell": Style(lambda s: CellOfLists(8), (3, 5), 5, strides=(1,)),
    "gdas of a cell": Style(
        lambda s: CellOfLists(8),
        (3, 5),
        5,
        method="forward_gdas",
        arguments=lambda w: (w, torch.tensor([3, 2, 4])),
        strides=(1,),
    ),
    "two forwards": Style(lambda s: TwoForwards(8, s), (5,), 5, method="forward_darts"),
    "one of two forwards": Style(
        lambda s: TwoForwards(8, s), (5,), 5, method="forward_gdas", arguments=lambda w: (w, 2)
    ),
    "primitives": Style(
        lambda s: MixedPrimitives(primitives(8, s)), (8,), 8, arguments=lambda w: (SimpleNamespace(alpha=w),)
    ),
    "choice": Style(lambda s: DictChoice(darts_candidates(8, s)), (), 8, arguments=lambda w: ()),
    "named layers": Style(
        lambda s: NamedLayers(darts_candidates(8, s), nn.Parameter(torch.randn(8))),
        (),
        8,
        arguments=lambda w: (),
    ),
    "dropout": Style(lambda s: DropoutMixture(8, s, ALL, 0.3), (8,), 7),
    "partial": Style(lambda s: PartialMixture(16, s), (8,), 8, channels=16),
    "growing": Style(lambda s: GrowingMixture(12, s, 6), (8,), 8, channels=12),
}


def swapped(style: Style, stride: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(stride)
    original = style.make(stride).to(dtype)
    with torch.no_grad():
        for name, tensor in original.state_dict().items():
            if "running" in name:
                tensor.uniform_(0.5, 2)
    model = nn.ModuleDict({"edge": copy.deepcopy(original)})
    report = replace_mixed_ops(model)
    assert not report.kept, str(report)
    for item in report.swapped:
        expected = style.fused + (1 if stride == 2 and isinstance(original, DropoutMixture) else 0)
        assert len(item.candidates) == expected, item
    return original, model["edge"]


def run(module: nn.Module, style: Style, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(7)
    x = torch.randn(3, style.channels, 8, 8, dtype=dtype, requires_grad=True)
    w = torch.rand(style.shape, dtype=dtype, requires_grad=True)
    torch.manual_seed(8)  # of dropout
    y = getattr(module, style.method)(x, *style.arguments(w))
    # Not module.parameters(), which some of the styles override.
    parameters = [p for m in module.modules() for p in m._parameters.values() if p is not None]
    wanted = [x, w, *parameters]
    found = torch.autograd.grad(y, wanted, torch.cos(3 * y.detach()), allow_unused=True)
    return y.detach(), [torch.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True)]
