"""Tensors with a scale, for forward passes whose values leave the range of float64.

A network with positive weights multiplies its activations by the size of each layer, often by thousands. Here
a tensor stands for itself times exp(scale). Only tensors that would overflow or vanish get a scale, so
ordinary networks run unchanged.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pynas.stats.memory_format import check_format
from pynas.stats.overrides import without_override_check

LIMIT = 2.0**64  # products beyond this or below its reciprocal are rescaled; gradients then stay in range

Func = Callable[..., Any]
PRODUCTS: frozenset[Func] = frozenset(
    {F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear}
)
BATCH_NORMS: frozenset[Func] = frozenset({F.batch_norm, torch.batch_norm})
# Functions with f(a x) = a f(x) for a > 0, where x is the first argument and the only tensor.
HOMOGENEOUS: frozenset[Func] = frozenset(
    {
        F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.leaky_relu, F.dropout,
        F.dropout2d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d, F.avg_pool3d,
        F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.max_pool1d, F.max_pool2d,
        F.adaptive_max_pool2d, F.interpolate, F.pixel_shuffle, torch.flatten, Tensor.flatten, torch.reshape,
        Tensor.reshape, Tensor.view, Tensor.view_as, Tensor.permute, torch.permute, Tensor.transpose,
        torch.transpose, Tensor.contiguous, Tensor.clone, Tensor.detach, Tensor.mean, torch.mean, Tensor.sum,
        torch.sum, Tensor.chunk, torch.chunk, Tensor.split, torch.split, Tensor.unbind, torch.unbind,
        Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze, Tensor.expand, Tensor.__getitem__,
        Tensor.max, Tensor.amax, Tensor.narrow, torch.narrow, Tensor.double, Tensor.to, Tensor.__neg__,
    }
)  # fmt: skip
SUMS: frozenset[Func] = frozenset({torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__})
SUMS_IN_PLACE: frozenset[Func] = frozenset({Tensor.add_, Tensor.__iadd__})
JOINS: frozenset[Func] = frozenset({torch.cat, torch.concat, torch.stack})
MULTIPLICATIONS: frozenset[Func] = frozenset(
    {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.matmul, Tensor.matmul, Tensor.__matmul__,
     torch.bmm, Tensor.bmm}
)  # fmt: skip
DIVISIONS: frozenset[Func] = frozenset({torch.div, Tensor.div, Tensor.__truediv__})


class LogScale(TorchFunctionMode):
    """Runs a model on tensors with scales; functions without a rule get plain numbers, which may overflow.

    Args:
        batch_norm: Whether to run batch norms; otherwise they are the identity.
    """

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self._inside: list[Func] = []
        self._scales: dict[int, tuple[Tensor, float]] = {}  # holds the tensors, so that ids are not reused

    def scale(self, x: object) -> float:
        """The scale of ``x``, a logarithm; 0 for objects without one."""
        return self._scales[id(x)][1] if id(x) in self._scales else 0.0

    def __torch_function__(
        self,
        func: Func,
        kinds: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        check_format(func)
        if func in BATCH_NORMS and not self.batch_norm:
            return args[0] if args else kwargs["input"]
        if func not in HOMOGENEOUS and _composite(func) and func not in self._inside:
            self._inside.append(func)  # some ask again, by their public name, for what they call
            try:
                with self:  # composite functions, such as attention, follow the rules of what they call
                    return without_override_check(func)(*args, **kwargs)
            finally:
                self._inside.pop()
        y = self._scaled(func, args, kwargs) if self._scales else func(*args, **kwargs)
        return self._rescaled(y) if func in PRODUCTS else y

    def _rescaled(self, y: Tensor) -> Tensor:
        largest = float(y.detach().abs().amax()) if y.numel() else 0.0
        if 1 / LIMIT < largest < LIMIT or largest == 0 or not math.isfinite(largest):
            return y
        exponent = math.frexp(largest)[1]
        scaled: Tensor = self._with(y * 2.0**-exponent, self.scale(y) + exponent * math.log(2))
        return scaled

    def _with(self, y: Any, scale: float) -> Any:
        for t in y if isinstance(y, tuple | list) else (y,):
            if isinstance(t, Tensor) and t.is_floating_point() and (scale or id(t) in self._scales):
                self._scales[id(t)] = (t, scale)
        return y

    def _at(self, x: Any, scale: float) -> Any:
        """``x`` as a multiple of exp(scale)."""
        change = self.scale(x) - scale
        return x if change == 0 else x * math.exp(min(change, 1e4) if change < 700 else math.inf)

    def _scaled(self, func: Func, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if not any(self.scale(t) for t in _tensors(args, kwargs)):
            return func(*args, **kwargs)
        first = args[0] if args else None
        own = self.scale(first)
        if func in PRODUCTS and own and not any(self.scale(t) for t in args[1:]):
            return self._product(func, args, kwargs)
        if func in HOMOGENEOUS and own:
            return self._with(func(*args, **kwargs), own)
        if func in JOINS and isinstance(first, Sequence):
            common = max(self.scale(t) for t in first)
            return self._with(func([self._at(t, common) for t in first], *args[1:], **kwargs), common)
        if len(args) == 2 and not kwargs:
            second = args[1]
            if func in SUMS | SUMS_IN_PLACE:
                return self._sum(func, first, second)
            if func in MULTIPLICATIONS:
                return self._with(func(first, second), own + self.scale(second))
            if func in DIVISIONS:
                return self._with(func(first, second), own - self.scale(second))
        plain = [
            [self._at(v, 0.0) for v in a] if isinstance(a, list | tuple) else self._at(a, 0.0) for a in args
        ]
        result = func(*plain, **{k: self._at(v, 0.0) for k, v in kwargs.items()})
        if _in_place(func) and own and isinstance(first, Tensor):
            # It has changed what was brought into range, not yet the model's own tensor.
            self._with(first.copy_(cast(Tensor, plain[0])), 0.0)
            return None if result is None else first
        return result

    def _product(self, func: Func, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """W x + b with scaled x: both terms are brought to the larger scale."""
        x, weight, bias, rest = args[0], args[1], args[2] if len(args) > 2 else kwargs.get("bias"), args[3:]
        common = self.scale(x) if bias is None else max(self.scale(x), 0.0)
        options = {k: v for k, v in kwargs.items() if k != "bias"}
        y = func(
            self._at(x, common), weight, None if bias is None else self._at(bias, common), *rest, **options
        )
        return self._with(y, common)  # type: ignore[no-any-return]

    def _sum(self, func: Func, a: Any, b: Any) -> Any:
        common = max(self.scale(t) for t in (a, b) if isinstance(t, Tensor))
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            common = max(common, 0.0)
        if func in SUMS_IN_PLACE:
            a.mul_(math.exp(self.scale(a) - common)).add_(self._at(b, common))
            return self._with(a, common)
        return self._with(torch.add(self._at(a, common), self._at(b, common)), common)


def _composite(func: Func) -> bool:
    """Whether it is a Python function of other functions, such as torch's functionals or a model's own."""
    module = func.__module__ if isinstance(func, types.FunctionType) else None
    return module is not None and (module == F.__name__ or module.partition(".")[0] != "torch")


def _in_place(func: Func) -> bool:
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in ("__imul__", "__iadd__", "__isub__")


def _tensors(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterable[Any]:
    for value in (*args, *kwargs.values()):
        yield from value if isinstance(value, list | tuple) else (value,)
