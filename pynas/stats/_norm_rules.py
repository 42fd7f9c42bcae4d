"""Rules of the normalising functions; what a rule is, :mod:`pynas.stats._rules` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas._errors import UserError
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._fast import fuses_batch_norm
from pynas.stats._layout import Layout
from pynas.stats._norm_calls import BatchNormCall, GroupNormCall, LayerNormCall

Func = Callable[..., Any]
Sizes = int | tuple[int, ...]


def batch_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    """How to normalise is the recorder's choice, whatever the module's mode; running statistics stay."""
    if recorder.log is not None:  # whose rows move with whose is measured: no sample may move another
        return _scaled(input, weight, bias)
    of_samples = recorder.is_sample(input)
    groups = recorder.num_groups if recorder.batch_norm == "group" else 1
    mean, variance, own = statistics_for(
        recorder.batch_norm, input, of_samples, groups, running_mean, running_var, training
    )

    def plain(weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return torch.batch_norm(
            input, weight, bias, mean, variance, own, 0.0, eps, torch.backends.cudnn.enabled
        )

    if not of_samples:
        return plain(weight, bias)
    if groups > 1 and (recorder.layout(input).dim != 0 or recorder.layout(input).before > 1):
        raise UserError('batch_norm="group": a batch norm does not see the samples in the order of the batch')

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> BatchNormCall:
        running = None if mean is None or variance is None else (mean, variance)
        return BatchNormCall(w, b, eps, groups, running, layout)

    y = recorder.record("batch_norm", input, weight, bias, call)
    w, b = recorder.plain(input, weight, bias)
    constant = all(t is None or not t.requires_grad for t in (w, b))
    if y is None and constant and (groups > 1 or (own and fuses_batch_norm(input, w, b))):
        y = recorder.through(input, call(w, b, Layout(0)))
    return plain(w, b) if y is None else y


def statistics_for(
    how: str,
    x: Tensor,
    of_samples: bool,
    groups: int,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
) -> tuple[Tensor | None, Tensor | None, bool]:
    """Running statistics for a batch norm of ``x``, and whether it takes those of ``x`` itself instead.

    Of samples as ``how`` says, whatever the module's mode; of weights (to standardise them) by its mode.
    """
    if not of_samples:
        return mean, variance, training or mean is None
    running = running_statistics(how, mean, variance)
    if running is None:
        check_values_per_channel(x, groups)
        return None, None, True
    return *running, False


def running_statistics(
    how: str, mean: Tensor | None, variance: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """The statistics that batch norm is to use instead of the batch's own, if ``how`` is "frozen"."""
    if how != "frozen":
        return None
    if mean is None or variance is None:
        raise UserError('batch_norm="frozen": the model has a batch norm without running statistics')
    return mean, variance


def check_values_per_channel(x: Tensor, groups: int) -> None:
    """UserError where batch norm would normalise a single value."""
    if x.numel() // x.shape[1] // groups < 2:
        raise UserError(
            f"inputs: batch norm has one value per channel ({tuple(x.shape)} in {groups} group(s)); "
            'pass more samples or a larger group_size, or batch_norm="frozen"'
        )


def torch_batch_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Any:
    return batch_norm(recorder, func, input, running_mean, running_var, weight, bias, training, momentum, eps)


def layer_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> LayerNormCall:
        return LayerNormCall(w, b, eps, tuple(normalized_shape), layout.first)

    y = recorder.record("layer_norm", input, weight, bias, call)
    return func(input, normalized_shape, *recorder.plain(input, weight, bias), eps) if y is None else y


def rms_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> LayerNormCall:
        smallest = torch.finfo(input.dtype).eps if eps is None else eps
        return LayerNormCall(w, None, smallest, tuple(normalized_shape), layout.first, rms=True)

    y = recorder.record("rms_norm", input, weight, None, call)
    return func(input, normalized_shape, *recorder.plain(input, weight), eps) if y is None else y


def group_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> GroupNormCall:
        return GroupNormCall(w, b, eps, num_groups, layout)

    y = recorder.record("group_norm", input, weight, bias, call)
    return func(input, num_groups, *recorder.plain(input, weight, bias), eps) if y is None else y


def instance_norm(
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    """Samples do not mix here, so the choice for batch norm has no say; running statistics stay."""

    def call(w: Tensor | None, b: Tensor | None, layout: Layout) -> GroupNormCall | BatchNormCall:
        if use_input_stats:
            return GroupNormCall(w, b, eps, input.shape[1], layout)
        assert running_mean is not None
        assert running_var is not None
        return BatchNormCall(w, b, eps, running=(running_mean, running_var), layout=layout)

    y = recorder.record("instance_norm", input, weight, bias, call)
    if y is None:
        given = (None, None) if use_input_stats else (running_mean, running_var)
        w, b = recorder.plain(input, weight, bias)
        y = F.instance_norm(input, *given, w, b, use_input_stats, 0.0, eps)
    return y


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1) + (1,) * (x.dim() - 2)
    y = x + 0.0 if weight is None else x * weight.view(shape).to(x.dtype)
    return y if bias is None else y + bias.view(shape).to(x.dtype)
