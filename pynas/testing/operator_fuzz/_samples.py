"""Valid calls of every operator that is registered, to be made wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, randn
from torch.utils import _pytree as pytree

from pynas import ops
from pynas.testing import differentiable
from pynas.testing.differentiable import DIFFERENTIABLE
from pynas.testing.operator_fuzz._memory import elements
from pynas.testing.ops import SPECS, Recorder, filler, integers

_MOST = 4000  # elements of a sample's largest tensor
_SAMPLES = 8  # of an operator

Run: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class OperatorCall:
    """One call: arguments by the names of the schema."""

    op: str
    arguments: dict[str, Any]


def schemas() -> dict[str, Any]:
    """Every operator's schema by its name, those of tests and of other operators included."""
    return {
        schema.name.removeprefix("pynas::"): schema
        for schema in sorted(torch._C._jit_get_all_schemas(), key=lambda schema: schema.name)
        if schema.name.startswith("pynas::") and not schema.overload_name
    }


def samples() -> dict[str, list[OperatorCall]]:
    """A few calls of every operator, of different sizes and dtypes.

    They are what the public functions call on the samples of the conformance suites, forward and backward,
    and calls of what those do not reach.
    """
    known = schemas()
    found: dict[str, dict[str, OperatorCall]] = {op: {} for op in known}
    with Recorder() as recorder:
        for run in (*_conformance(), *_others()):
            run()
    for func, args, kwargs in recorder.calls:
        op = func.overloadpacket.__name__
        names = [argument.name for argument in known[op].arguments]
        plain = pytree.tree_map_only(Tensor, _copy, (args, kwargs))
        call = OperatorCall(op, dict(zip(names, plain[0], strict=False)) | plain[1])
        tensors = [leaf for leaf in pytree.tree_leaves(call.arguments) if isinstance(leaf, Tensor)]
        if max(elements(tensor) for tensor in tensors) <= _MOST:
            found[op].setdefault(describe(call), call)
    return {op: _spread(sorted(calls.values(), key=_size)) for op, calls in found.items()}


def describe(call: OperatorCall) -> str:
    """The call in one line, tensors by what they are and not by their values."""
    shown = pytree.tree_map_only(Tensor, _describe, call.arguments)
    return f"{call.op}({', '.join(f'{name}={value}' for name, value in shown.items())})"


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _describe(tensor: Tensor) -> _Text:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided:
        return _Text(f"{kind}{list(tensor.shape)} {tensor.layout}")
    place = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    dense = "" if tensor.is_contiguous() else f" strides {tensor.stride()}"
    return _Text(f"{kind}{list(tensor.shape)}{dense}{place}")


def _copy(tensor: Tensor) -> Tensor:
    """The same strides in memory of its own."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor.detach())


def _size(call: OperatorCall) -> int:
    return sum(elements(leaf) for leaf in pytree.tree_leaves(call.arguments) if isinstance(leaf, Tensor))


def _spread(calls: list[OperatorCall]) -> list[OperatorCall]:
    """At most `_SAMPLES` of them, from the smallest to the largest."""
    if len(calls) <= _SAMPLES:
        return calls
    return [calls[round(i * (len(calls) - 1) / (_SAMPLES - 1))] for i in range(_SAMPLES)]


def _conformance() -> Iterator[Run]:
    for spec in SPECS.values():
        for i, sample in enumerate(spec.samples):
            # Sums of small integers are exact, so that any two ways to compute them agree to the bit.
            dtype = (torch.float32, torch.bfloat16, torch.float64)[i % 3]
            arguments, options = sample.make(integers(dtype))
            yield partial(spec.function, *arguments, **options)
    for different in DIFFERENTIABLE.values():
        for i, other in enumerate(different.samples):
            dtypes = [dtype for dtype in different.dtypes if dtype != torch.float16]
            yield partial(
                differentiable.Run, different, different.function, other.make(filler(dtypes[i % len(dtypes)]))
            )


def _others() -> Iterator[Run]:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((2, 5, 6, 7), (4, 17, 5, 5), (3, 16, 8, 8)):
            image = randn(shape).to(dtype).to(memory_format=torch.channels_last)
            yield from _layers(image, dtype)
            yield from _stages(image, dtype)


def _layers(x: Tensor, dtype: torch.dtype) -> Iterator[Run]:
    channels = x.shape[1]
    y = ops.avg_pool2d(x, 3, stride=2, padding=1)
    yield partial(ops.avg_pool2d, x, 3, stride=2, padding=1)
    yield partial(ops.avg_pool2d_backward, y, x, 3, stride=2, padding=1)
    scale, shift = randn(channels), randn(channels)
    for groups in (1, 2) if len(x) % 2 == 0 else (1,):
        _, mean, rstd = ops.batch_norm(x, scale, shift, groups=groups)
        yield partial(ops.batch_norm, x, scale, shift, groups=groups)
        yield partial(ops.batch_norm_backward, x.flip(0), x, scale, mean, rstd)
    _, mean, rstd = ops.batch_norm(x, scale, None)
    yield partial(ops.batch_norm_double_backward, x.flip(0), x.flip(2), x, scale, mean, rstd)
    for kernel, forward, to_input, to_weight in (
        (1, ops.conv1x1, ops.conv1x1_backward_input, ops.conv1x1_backward_weight),
        (3, ops.conv3x3, ops.conv3x3_backward_input, ops.conv3x3_backward_weight),
    ):
        weight = randn(9, channels, kernel, kernel).to(dtype)
        grad = forward(x, weight)
        yield partial(forward, x, weight, True)
        yield partial(to_input, grad, weight, x, True, x)
        yield partial(to_input, grad, weight)
        yield partial(to_weight, grad, x, True)
    if len(x) % 2 == 0:
        grad = ops.conv3x3(x, randn(9, channels, 3, 3).to(dtype))
        yield partial(ops.conv3x3_backward_weight, grad, x, True, 2)


def _stages(x: Tensor, dtype: torch.dtype) -> Iterator[Run]:
    core, channels = torch.ops.pynas, x.shape[1]
    gates = torch.tensor([0.5, 0.0])
    filters = [randn(channels, 1, kernel, kernel).to(dtype) for kernel in (3, 5)]
    for stride in (1, 2):
        call = (x, filters, [1, 2], stride, randn(channels), randn(channels), gates)
        grads = core.depthwise_relu(*call)
        yield partial(core.depthwise_relu, *call)
        yield partial(core.depthwise_relu_backward_input, *call, grads)
        yield partial(core.depthwise_relu_backward_weight, *call, grads)
        pools = core.pool3x3(x, stride, gates)
        yield partial(core.pool3x3, x, stride, gates)
        yield partial(core.pool3x3_backward, x, stride, gates, *pools)
        names = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
        shapes = ops.mixed_op_parameters(names, channels, stride, True, family="darts")
        parameters = [randn(shape).to(dtype) for _, shape in shapes]
        running = [1 + randn(channels).abs() for _ in 2 * ops.mixed_op_norms(names, stride, family="darts")]
        for training in (True, False):
            options = (stride, True, training, 1e-5, 1, pools[0])
            given = [] if training else running
            yield partial(core.darts_stages_gated, x, randn(5), parameters, given, [0, 1, 3, 4, 7], *options)
