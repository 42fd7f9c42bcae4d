"""Convolutions of one to three dimensions, and their transposes, as recorded calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pynas import ops
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._calls import ConvCall
from pynas.stats._fast import avg_pool2d
from pynas.stats._layout import Layout

Func = Callable[..., Any]
Sizes = int | tuple[int, ...]


def conv(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Any:
    dims = weight.dim() - 2
    given = input
    steps = ops.subsamples(input, weight, stride, padding)
    if steps is not None:
        pooled = avg_pool2d(input, (1, 1), steps, (0, 0), True)
        input = F.avg_pool2d(input, 1, steps) if pooled is None else pooled
        stride, padding = 1, 0

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> ConvCall:
        assert w is not None
        return ConvCall(
            w, b, sizes(stride, dims), sizes(amount, dims), sizes(dilation, dims), groups, layout=layout
        )

    x, amount = input, padding
    if isinstance(padding, str):
        x, amount = _explicit_padding(input, weight, padding, sizes(dilation, dims))
    if x.dim() != weight.dim():  # one image without a dimension for samples
        return NotImplemented
    y = recorder.record(f"conv{dims}d", x, weight, bias, call, matrix=True, of=given)
    if y is not None:
        return y
    return func(input, *recorder.plain(given, weight, bias), stride, padding, dilation, groups)


def _explicit_padding(
    x: Tensor, weight: Tensor, padding: str, dilation: tuple[int, ...]
) -> tuple[Tensor, Sizes]:
    if padding == "valid":
        return x, 0
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if all(t % 2 == 0 for t in total):
        return x, tuple(t // 2 for t in total)
    pads = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
    return F.pad(x, pads), 0


def conv_transpose(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Any:
    dims = weight.dim() - 2

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> ConvCall:
        assert w is not None
        return ConvCall(
            w, b, sizes(stride, dims), sizes(padding, dims), sizes(dilation, dims), groups,
            transposed=True, output_padding=sizes(output_padding, dims), layout=layout,
        )  # fmt: skip

    if input.dim() != weight.dim():
        return NotImplemented
    y = recorder.record(f"conv_transpose{dims}d", input, weight, bias, call, matrix=True)
    if y is not None:
        return y
    w, b = recorder.plain(input, weight, bias)
    return func(input, w, b, stride, padding, output_padding, groups, dilation)


def sizes(value: Any, dims: int) -> tuple[int, ...]:
    """A setting of a convolution or pooling for each dimension."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * dims if len(given) == 1 else given
