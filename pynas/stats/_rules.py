"""Which functional calls are understood, and how each becomes a recorded call.

A rule has the signature of the function it stands for, after the recorder and the function itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas._errors import UserError
from pynas.nn.nasbench201_cell import run_cell
from pynas.stats import _conv_rules, _norm_rules
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._calls import AddmmCall, EmbeddingCall, LinearCall, MatmulCall
from pynas.stats._conv_rules import Sizes, sizes
from pynas.stats._fast import avg_pool2d
from pynas.stats._layout import Layout
from pynas.stats._recurrent_rules import RECURRENT_RULES
from pynas.stats.nasbench201.rule import cell_rule

Func = Callable[..., Any]


def _linear(
    recorder: CallRecorder, func: Func, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> LinearCall:
        assert w is not None
        return LinearCall(w, b, layout.first)

    y = recorder.record("linear", input, weight, bias, call, matrix=True)
    return func(input, *recorder.plain(input, weight, bias)) if y is None else y


def _matmul(recorder: CallRecorder, func: Func, *args: Any, **kwargs: Any) -> Any:
    """``x W`` with a matrix that comes from parameters on the right, or ``W x`` on the left."""
    if kwargs or len(args) != 2:
        return NotImplemented
    left, right = args
    if right.dim() == 2 and left.dim() >= 2 and not recorder.comes_from(left):

        def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> MatmulCall:
            assert w is not None
            return MatmulCall(w, layout.first)

        y = recorder.record("matmul", left, right, None, call, matrix=True)
        return NotImplemented if y is None else y
    if left.dim() == 2 and right.dim() >= 3 and not recorder.comes_from(right):
        place = recorder.where(right)
        if isinstance(place, Layout) and place.dim >= right.dim() - 2:
            return NotImplemented  # what the product adds up, or what it takes as its last dimension

        def transposed(w: Tensor | None, b: Tensor | None, layout: Layout) -> LinearCall:
            assert w is not None
            return LinearCall(w, b, _with_last_two_swapped(layout, right.dim()).first)

        y = recorder.record("matmul", right.mT, left, None, transposed, matrix=True, of=right)
        return NotImplemented if y is None else y.mT
    return NotImplemented


def _reflected_matmul(recorder: CallRecorder, func: Func, right: Tensor, left: Tensor) -> Any:
    """What ``left @ right`` becomes where the right one is a parameter."""
    return _matmul(recorder, func, left, right)


def _with_last_two_swapped(layout: Layout, dims: int) -> Layout:
    swapped = {dims - 1: dims - 2, dims - 2: dims - 1}
    return replace(layout, dim=swapped.get(layout.dim, layout.dim))


def _addmm(
    recorder: CallRecorder, func: Func, input: Tensor, mat1: Tensor, mat2: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """``bias + x W``: the linear layers of GPT-2."""
    if args or kwargs or input.dim() != 1 or recorder.comes_from(mat1):
        return NotImplemented

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> AddmmCall:
        assert w is not None
        return AddmmCall(w, b, layout.first)

    y = recorder.record("addmm", mat1, mat2, input, call, matrix=True)
    return NotImplemented if y is None else y


def _embedding(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    name = recorder.own.get(id(weight), "a table")
    if max_norm is not None:
        raise UserError(
            f"model: embedding {name!r} has max_norm, which rescales its rows in forward; unset it"
        )
    index = -1 if padding_idx is None else padding_idx + (weight.shape[0] if padding_idx < 0 else 0)

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> EmbeddingCall:
        assert w is not None
        if scale_grad_by_freq:
            raise UserError(
                f"model: embedding {name!r} scales gradients by frequency, which couples samples; unset it"
            )
        return EmbeddingCall(w, index, layout.first)

    y = recorder.record("embedding", input, weight, None, call)
    if y is None:
        (table,) = recorder.plain(input, weight)
        assert table is not None
        y = F.embedding(input, table, padding_idx)
    return recorder.embedded(input, y)


def _embedding_bag(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Bags of equal length, [B, T]: rows of the table, then their sum, mean or maximum."""
    if offsets is not None or input.dim() != 2 or max_norm is not None or scale_grad_by_freq:
        return NotImplemented
    with recorder:
        rows = F.embedding(input, weight, padding_idx)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights.unsqueeze(-1)
        if padding_idx is None:
            return rows.amax(1) if mode == "max" else rows.sum(1) if mode == "sum" else rows.mean(1)
        kept = (input != padding_idx).unsqueeze(-1)
        if mode == "max":
            return torch.where(kept.any(1), rows.masked_fill(~kept, -math.inf).amax(1), 0.0)
        total = (rows * kept).sum(1)
        return total if mode == "sum" else total / kept.sum(1).clamp(min=1)


def _relu(recorder: CallRecorder, func: Func, input: Tensor, inplace: bool = False) -> Any:
    recorder.saw_relu(input, func=func)
    # Sharing the result is safe: backward needs it, so changing it in place is an error with or without us.
    if inplace or not input.requires_grad:
        return func(input, inplace) if inplace else func(input)
    return recorder.memo(("relu",), input, lambda: torch.relu(input))


def _like_relu(recorder: CallRecorder, func: Func, input: Tensor, *bounds: Any, **options: Any) -> Any:
    """In place, or clipped above as well: ReLU6, and hardtanh from 0, as which its module calls it."""
    lowest = options.get("min_val", bounds[0] if bounds else -1.0)
    if func is not F.hardtanh or lowest == 0:
        recorder.saw_relu(input, func=func)
    return func(input, *bounds, **options)


def _avg_pool2d(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    if ceil_mode or divisor_override is not None:
        return func(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    window, pads = _pair(kernel_size), _pair(padding)
    steps = window if stride is None or stride == () else _pair(stride)

    y = avg_pool2d(input, window, steps, pads, count_include_pad)
    return func(input, window, steps, pads, False, count_include_pad) if y is None else y


def _iterate(recorder: CallRecorder, func: Func, x: Tensor) -> Any:
    """``for row in x``, whose rows nobody would see otherwise."""
    with recorder:
        return iter(x.unbind(0))


def _pair(value: Any) -> tuple[int, int]:
    height, width = sizes(value, 2)
    return height, width


RULES: dict[Func, Func] = {
    F.linear: _linear,
    torch.mm: _matmul,
    torch.matmul: _matmul,
    Tensor.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: _reflected_matmul,
    torch.addmm: _addmm,
    Tensor.addmm: _addmm,
    F.conv1d: _conv_rules.conv,
    F.conv2d: _conv_rules.conv,
    F.conv3d: _conv_rules.conv,
    F.conv_transpose1d: _conv_rules.conv_transpose,
    F.conv_transpose2d: _conv_rules.conv_transpose,
    F.conv_transpose3d: _conv_rules.conv_transpose,
    F.batch_norm: _norm_rules.batch_norm,
    torch.batch_norm: _norm_rules.torch_batch_norm,
    F.layer_norm: _norm_rules.layer_norm,
    torch.layer_norm: _norm_rules.layer_norm,
    F.rms_norm: _norm_rules.rms_norm,
    torch.rms_norm: _norm_rules.rms_norm,
    F.group_norm: _norm_rules.group_norm,
    torch.group_norm: _norm_rules.group_norm,
    F.instance_norm: _norm_rules.instance_norm,
    F.embedding: _embedding,
    F.embedding_bag: _embedding_bag,
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _like_relu,
    Tensor.relu_: _like_relu,
    F.relu6: _like_relu,
    F.hardtanh: _like_relu,
    F.avg_pool2d: _avg_pool2d,
    run_cell: cell_rule,
    Tensor.__iter__: _iterate,
    **RECURRENT_RULES,
}
