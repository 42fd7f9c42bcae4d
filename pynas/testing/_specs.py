"""Specifications for the conformance suites: an operator, its definition, and sample inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

Fill: TypeAlias = Callable[[Sequence[int]], Tensor]
"""Makes a tensor of a shape; the suite chooses dtype, values and layout."""

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Sample:
    """One call of an operator.

    Attributes:
        name: What is special about it.
        make: Returns positional and keyword arguments, with floating tensors made by the given `Fill`.
        scale: Typical size of a gradient's entries for standard normal inputs; errors are relative to it.
    """

    name: str
    make: Callable[[Fill], Call]
    scale: float


@dataclass(frozen=True)
class OpSpec:
    """An operator of pynas.ops, the definition it must agree with, and inputs to try."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    samples: tuple[Sample, ...]
    quadratic: bool = field(default=False)
    """Results are products of two gradients (norms, Gram matrices)."""


@dataclass(frozen=True)
class DifferentiableSample(Sample):
    """One call of a differentiable operator.

    Attributes:
        smooth: Whether finite differences give the gradient: no weight is exactly zero, no maximum is tied.
        scale: Errors are relative to the larger of this and the result's largest entry.
    """

    scale: float = 0.0
    smooth: bool = True


@dataclass(frozen=True)
class DifferentiableSpec:
    """A differentiable operator of pynas.ops, the definition it must agree with, and inputs to try."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    samples: tuple[DifferentiableSample, ...]
    buffers: frozenset[str] = frozenset({"running"})
    """Options whose tensors are updated in place instead of differentiated."""
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    layouts: tuple[str, ...] = ("contiguous", "channels_last", "strided", "expanded")
    tolerance: Mapping[torch.dtype, float] = field(default_factory=lambda: MappingProxyType({}))
    """Replaces the suite's own tolerance if that is too strict, with the reason next to it."""
    second: bool = True
    """Second derivatives exist."""
    second_traced: bool = True
    """Second derivatives can also be traced: they do not depend on values."""
