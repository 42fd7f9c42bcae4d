"""Shapes of the stages that mixed operations are composed of, for tracing and FakeTensors.

The stages are operators for tests and measurements; other code calls :func:`pynas.ops.mixed_op`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype
from pynas.ops.candidates import CODES, norms
from pynas.ops.tensors import new_image


def _depthwise(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    scale: Tensor | None,
    offset: Tensor | None,
    gates: Tensor | None,
) -> list[Tensor]:
    return [new_image(x, x.shape[1], stride) for _ in weights]


def _depthwise_input(x: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _depthwise_weight(x: Tensor, weights: Sequence[Tensor], *rest: object) -> list[Tensor]:
    return [weight.new_empty(weight.shape, dtype=accumulate_dtype(x.dtype)) for weight in weights]


def _pool(x: Tensor, stride: int, gates: Tensor | None) -> tuple[Tensor, Tensor]:
    return new_image(x, x.shape[1], stride), new_image(x, x.shape[1], stride)


def _pool_input(x: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _darts(
    x: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor],
    running: Sequence[Tensor],
    candidates: Sequence[int],
    stride: int,
    *rest: object,
) -> list[Tensor]:
    names = {code: name for name, code in CODES.items()}
    rows = sum(len(norms(names[code], "darts", stride)) for code in candidates)
    statistics = x.new_empty(rows, 3, x.shape[1], dtype=accumulate_dtype(x.dtype))
    gradients = [torch.empty_like(tensor) for tensor in (weights, *parameters)]
    return [new_image(x, x.shape[1], stride), statistics, torch.empty_like(x), *gradients]


register_fake("depthwise_relu", _depthwise)
register_fake("depthwise_relu_backward_input", _depthwise_input)
register_fake("depthwise_relu_backward_weight", _depthwise_weight)
register_fake("pool3x3", _pool)
register_fake("pool3x3_backward", _pool_input)
register_fake("darts_stages_gated", _darts, host="weights")
