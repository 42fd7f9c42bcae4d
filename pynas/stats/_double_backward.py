"""Curvature along the weights by differentiating twice in plain PyTorch: slower, and for any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.stats.data import LossFn, call_model, loss_of, writable
from pynas.stats.weights import ProductWatch, matrix_names


def double_backward(
    model: nn.Module, inputs: Any, targets: Any, loss_fn: LossFn | None, batch: int
) -> tuple[dict[str, float], float]:
    """sum_w w (H g)_w by weight, and the loss; H is that of the loss, g its gradient.

    The weights are those of :func:`pynas.stats.weights.weight_names`.

    Raises:
        UserError: PyTorch has no second derivative of something that the model calls.
    """
    try:
        return _differentiated_twice(model, inputs, targets, loss_fn, batch)
    except RuntimeError as error:
        if not lacks_derivative(error):
            raise
        raise UserError(
            f"model: it has no curvature that PyTorch can compute ({error}); use another function, or "
            "proxies of first derivatives alone"
        ) from error


def lacks_derivative(error: RuntimeError) -> bool:
    """Whether PyTorch says with this error that a function has no second derivative."""
    said = str(error)
    return "derivative for" in said or "is not differentiable twice" in said


def _differentiated_twice(
    model: nn.Module, inputs: Any, targets: Any, loss_fn: LossFn | None, batch: int
) -> tuple[dict[str, float], float]:
    parameters, inputs = dict(model.named_parameters()), writable(inputs)
    # Fused attention and recurrent layers have no second derivative.
    with (
        sdpa_kernel(SDPBackend.MATH),
        _without_onednn(),
        ProductWatch(parameters, inputs) as watch,
        _TwiceDifferentiable(),  # asked first: the other one looks into functions
    ):
        loss = loss_of(call_model(model, inputs), targets, loss_fn, batch, 1)
    names = [n for n in parameters if n in watch.found or n in set(matrix_names(model))]
    weights = [parameters[n] for n in names]
    if any(w.is_complex() for w in weights):
        name = next(n for n, w in zip(names, weights, strict=True) if w.is_complex())
        raise UserError(f"model: parameter {name!r} is complex, and the curvature of real weights is meant")
    found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    along = [(g, g.detach()) for g in found if g is not None and g.requires_grad]
    value = float(loss.detach())
    if not along:
        return dict.fromkeys([n for n, g in zip(names, found, strict=True) if g is not None], 0.0), value
    total = torch.stack([(g * fixed).sum() for g, fixed in along]).sum()
    second = torch.autograd.grad(total, weights, allow_unused=True)
    return {
        name: 0.0 if h is None else float((w.detach().double() * h.double()).sum())
        for name, w, g, h in zip(names, weights, found, second, strict=True)
        if g is not None
    }, value


@contextmanager
def _without_onednn() -> Iterator[None]:
    # torch.backends.mkldnn.flags warns of what it does not change.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


class _TwiceDifferentiable(TorchFunctionMode):
    """Functions without a second derivative in PyTorch, written with those that have one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        rule = _RULES.get(func)
        return rule(*args, **(kwargs or {})) if rule is not None else func(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


def _hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    return input * F.relu6(input + 3) / 6


_RULES = {F.hardsigmoid: _hardsigmoid, F.hardswish: _hardswish}
