"""Curvature along the weights by differentiating twice in plain PyTorch: slower, and for any model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.stats.data import LossFn, call_model, loss_of, writable
from pynas.stats.weights import ProductWatch, matrix_names


@dataclass(frozen=True, slots=True)
class Twice:
    """What differentiating twice found.

    Attributes:
        values: sum_w w (H g)_w by weight that the loss depends on.
        loss: The loss.
        weights: Names of all weights.
        unseen: Of parameters that may be weights where nobody can follow them.
    """

    values: dict[str, float]
    loss: float
    weights: frozenset[str]
    unseen: frozenset[str]


def double_backward(model: nn.Module, inputs: Any, targets: Any, loss_fn: LossFn | None, batch: int) -> Twice:
    """sum_w w (H g)_w by weight; H is the Hessian of the loss, g its gradient.

    The weights are those of :func:`pynas.stats.weights.weight_names`.

    Raises:
        UserError: PyTorch has no second derivative of something that the model calls.
    """
    try:
        return _differentiated_twice(model, inputs, targets, loss_fn, batch)
    except RuntimeError as error:
        if not lacks_derivative(error):
            raise
        found = re.search(r"derivative for '?([\w:]+?)'? is not implemented", str(error))
        name = "" if found is None else found[1].rpartition("::")[2].strip("_").removesuffix("_backward")
        raise _once(f"operator {name}" if name else str(error)) from error


def _once(what: str) -> UserError:
    return UserError(
        f"model: it has no curvature that PyTorch can compute: {what} can be differentiated once only; write "
        "it with basic operators, or take proxies of first derivatives alone"
    )


def ends_in_error(tensors: Sequence[Tensor]) -> bool:
    """Whether some gradient in the history of these came from a function that is differentiable once only.

    PyTorch has a node there that raises when it runs. On no way to a weight, it does not run, and that part
    of the second derivative would be left out without a word.
    """
    waiting = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().rpartition("::")[2] == "Error":
            return True
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)
    return False


def lacks_derivative(error: RuntimeError) -> bool:
    """Whether PyTorch says with this error that a function has no second derivative."""
    said = str(error)
    return "derivative for" in said or "is not differentiable twice" in said


def _differentiated_twice(
    model: nn.Module, inputs: Any, targets: Any, loss_fn: LossFn | None, batch: int
) -> Twice:
    parameters, inputs = dict(model.named_parameters()), writable(inputs)
    # Fused attention and recurrent layers have no second derivative.
    with (
        sdpa_kernel(SDPBackend.MATH),
        _without_onednn(),
        ProductWatch(model, inputs) as watch,
        _TwiceDifferentiable(),  # asked first: the other one looks into functions
    ):
        loss = loss_of(call_model(model, inputs), targets, loss_fn, batch, 1)
    watch.hide([loss])
    names = [n for n in parameters if n in watch.found or n in set(matrix_names(model))]
    known = frozenset(names)
    unseen = frozenset(watch.hidden) - known
    weights = [parameters[n] for n in names]
    if any(w.is_complex() for w in weights):
        name = next(n for n, w in zip(names, weights, strict=True) if w.is_complex())
        raise UserError(f"model: parameter {name!r} is complex, and the curvature of real weights is meant")
    found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    along = [(g, g.detach()) for g in found if g is not None and g.requires_grad]
    value = float(loss.detach())
    if not along:
        flat = dict.fromkeys([n for n, g in zip(names, found, strict=True) if g is not None], 0.0)
        return Twice(flat, value, known, unseen)
    total = torch.stack([(g * fixed).sum() for g, fixed in along]).sum()
    if ends_in_error([total]):
        raise _once("an autograd function of its own")
    second = torch.autograd.grad(total, weights, allow_unused=True)
    curvature = {
        name: 0.0 if h is None else float((w.detach().double() * h.double()).sum())
        for name, w, g, h in zip(names, weights, found, second, strict=True)
        if g is not None
    }
    return Twice(curvature, value, known, unseen)


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


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    norm: Callable[..., Tensor] = torch.linalg.vector_norm
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), ord=p, dim=-1)


_RULES: dict[Any, Callable[..., Tensor]] = {
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
    torch.cdist: _cdist,
    getattr(torch._C._VariableFunctions, "cdist"): _cdist,  # noqa: B009 - of which the stubs know nothing
}
