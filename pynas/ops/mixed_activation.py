"""The mixture of activations that makes one node of a recurrent supernet cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from pynas.ops._checks import check_device, check_float, check_like
from pynas.ops._fakes import register_fake
from pynas.ops._moments import accumulate_dtype

_NAME = "mixed_activation"

ACTIVATIONS: Final = ("none", "tanh", "relu", "sigmoid", "identity")
"""Candidates of the DARTS-PTB search cell, in its order."""

_KERNEL_ORDER: Final = ("tanh", "relu", "sigmoid", "identity")
_Function = Callable[[Tensor], Tensor]
_FUNCTIONS: Final[tuple[_Function, ...]] = (torch.tanh, torch.relu, torch.sigmoid, torch.clone)
_PLAIN, _BATCH, _GIVEN = 0, 1, 2  # the compiled operator's `normalization`


def mixed_activation(
    states: Tensor,
    products: Tensor,
    weights: Tensor,
    activations: Sequence[str] = ACTIVATIONS,
    *,
    normalized: bool = False,
    running: Sequence[Tensor] | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """s_bd = sum_j sum_k w_jk [s_jbd + sigmoid(c_jbd) (f_k(h_jbd) - s_jbd)], (c_j, h_j) = products_j.

    One pass over states and products, forward and backward; nothing but the inputs and the output is kept
    for backward. The sum over k leaves "none" out: it contributes zero, also to the carried state s_j. A
    weight of exactly zero costs nothing, and its gradient is zero; so soft mixtures, hard samples and a
    discrete cell are all tensor data of one operator. Liu, Simonyan & Yang, "DARTS", ICLR 2019.

    Where ``normalized``, the result is y_bd = (s_bd - mean_d) / sqrt(var_d + eps), as a
    ``torch.nn.BatchNorm1d`` without affine parameters gives it.

    Args:
        states: [J, B, D], the predecessors' states; float32, float64, bfloat16, or float16 on a GPU.
        products: [J, B, 2 D] like ``states``: c, then h, in the published cell (mask * states) @ W. Under
            autocast, states and products are promoted to the wider of their dtypes.
        weights: [J, K] of any float dtype, used in float32 (float64 for float64 states). NaN is refused on
            the CPU; on a GPU, where looking would wait, it goes into the result.
        activations: K different ones of "none", "tanh", "relu", "sigmoid", "identity", as columns of weights.
        normalized: whether the node is batch-normalised.
        running: running mean and (unbiased) variance [D], updated in place in training, used in evaluation.
        training: whether to normalise by the batch's statistics (B > 1), or by ``running``.
        momentum: weight of the batch's statistics in the running ones.
        eps: added to the variance.

    Returns:
        [B, D] in the dtype of ``states``. All zero weights give zeros. Differentiable in states, products and
        weights, twice through :func:`mixed_activation_reference`.

    Raises:
        ValueError: shapes, devices, activations or ``running`` do not fit; NaN weights; one row in training.
        TypeError: wrong dtypes.
    """
    states, products, weights = _prepare(states, products, weights, activations)
    mean, var = _check_running(states, running, normalized, training)
    mode = _PLAIN if not normalized else _BATCH if training else _GIVEN
    given = mode == _GIVEN
    y, batch_mean, batch_var = torch.ops.pynas.mixed_activation.default(
        states,
        products,
        weights,
        _columns(activations),
        mode,
        mean.to(weights.dtype) if given and mean is not None else None,
        var.to(weights.dtype) if given and var is not None else None,
        float(eps),
    )
    if mode == _BATCH and mean is not None and var is not None:
        _update_running(mean, var, batch_mean, batch_var, momentum, states.shape[1])
    result: Tensor = y
    return result


def mixed_activation_reference(
    states: Tensor,
    products: Tensor,
    weights: Tensor,
    activations: Sequence[str] = ACTIVATIONS,
    *,
    normalized: bool = False,
    running: Sequence[Tensor] | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The same by its definition, one activation after another."""
    states, products, weights = _prepare(states, products, weights, activations)
    mean, var = _check_running(states, running, normalized, training)
    s = _mixture(states.to(weights.dtype), products.to(weights.dtype), weights, _columns(activations))
    if not normalized:
        return s.to(states.dtype)
    if training:
        if states.shape[1] < 2:
            raise ValueError(_one_row(states))
        batch_mean, batch_var = s.mean(0), s.var(0, correction=0)
        if mean is not None and var is not None:
            _update_running(mean, var, batch_mean.detach(), batch_var.detach(), momentum, states.shape[1])
        return ((s - batch_mean) * (batch_var + eps).rsqrt()).to(states.dtype)
    assert mean is not None
    assert var is not None
    return ((s - mean.to(s.dtype)) * (var.to(s.dtype) + eps).rsqrt()).to(states.dtype)


def _mixture(states: Tensor, products: Tensor, weights: Tensor, columns: Sequence[int]) -> Tensor:
    c, h = products.chunk(2, dim=-1)
    gate = c.sigmoid()
    s = torch.zeros_like(states[0])
    for function, column in zip(_FUNCTIONS, columns, strict=True):
        if column < 0:
            continue
        weight = weights[:, column, None, None]
        candidate = states + gate * (function(h) - states)
        s = s + (weight * torch.where(weight != 0, candidate, 0)).sum(0)
    return s


def _columns(activations: Sequence[str]) -> list[int]:
    names = list(activations)
    return [names.index(name) if name in names else -1 for name in _KERNEL_ORDER]


def _update_running(
    mean: Tensor, var: Tensor, batch_mean: Tensor, batch_var: Tensor, momentum: float, rows: int
) -> None:
    with torch.no_grad():
        mean.mul_(1 - momentum).add_(batch_mean.to(mean.dtype), alpha=momentum)
        var.mul_(1 - momentum).add_(batch_var.to(var.dtype), alpha=momentum * rows / (rows - 1))


def _one_row(states: Tensor) -> str:
    return (
        f"{_NAME}: states: expected more than 1 value per channel when training, "
        f"got input size {tuple(states.shape)}"
    )


def _prepare(
    states: Tensor, products: Tensor, weights: Tensor, activations: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Checked arguments, autocast applied, weights in the dtype of the sums."""
    for name, tensor in (("states", states), ("products", products), ("weights", weights)):
        check_float(_NAME, name, tensor)
    device = states.device.type
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        wide = torch.promote_types(states.dtype, products.dtype)
        states, products = states.to(wide), products.to(wide)
    check_like(_NAME, "products", products, "states", states)
    check_device(_NAME, "weights", weights, "states", states)
    if states.dim() != 3 or states.shape[0] < 1:
        raise ValueError(
            f"{_NAME}: states: expected [predecessors, batch, features] with at least one predecessor, "
            f"got {tuple(states.shape)}; one state is states.unsqueeze(0)"
        )
    predecessors, batch, features = states.shape
    if products.shape != (predecessors, batch, 2 * features):
        raise ValueError(
            f"{_NAME}: products: expected [predecessors, batch, 2 * features] = "
            f"{(predecessors, batch, 2 * features)}, got {tuple(products.shape)}"
        )
    if isinstance(activations, str) or len(activations) == 0:
        raise ValueError(f"{_NAME}: activations: expected a sequence of names, got {activations!r}")
    for i, name in enumerate(activations):
        if name not in ACTIVATIONS:
            raise ValueError(
                f"{_NAME}: activations: expected names out of {', '.join(ACTIVATIONS)}, got {name!r}"
            )
        if name in activations[:i]:
            raise ValueError(f"{_NAME}: activations: expected each once, got {name!r} twice; add its weights")
    if weights.shape != (predecessors, len(activations)):
        raise ValueError(
            f"{_NAME}: weights: expected [predecessors, activations] = {(predecessors, len(activations))}, "
            f"got {tuple(weights.shape)}"
        )
    return states, products, weights.to(accumulate_dtype(states.dtype))


def _check_running(
    states: Tensor, running: Sequence[Tensor] | None, normalized: bool, training: bool
) -> tuple[Tensor | None, Tensor | None]:
    if running is None:
        if normalized and not training:
            raise ValueError(
                f"{_NAME}: running: expected the running mean and variance, as training is False, got None"
            )
        return None, None
    if not normalized:
        raise ValueError(f"{_NAME}: running: expected None for a node that is not normalized")
    if len(running) != 2:
        raise ValueError(f"{_NAME}: running: expected (mean, var), got {len(running)} tensors")
    for name, tensor in zip(("running[0]", "running[1]"), running, strict=True):
        check_float(_NAME, name, tensor)
        check_device(_NAME, name, tensor, "states", states)
        if tensor.shape != states.shape[2:]:
            raise ValueError(
                f"{_NAME}: {name}: expected {states.shape[2]} values, one a feature, "
                f"got {tuple(tensor.shape)}"
            )
    return running[0], running[1]


def _fake(
    states: Tensor,
    products: Tensor,
    weights: Tensor,
    columns: Sequence[int],
    normalization: int,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    size = states.shape[2] if normalization == _BATCH else 0
    return states.new_empty(states.shape[1:]), weights.new_empty(size), weights.new_empty(size)


def _fake_backward(
    grad_output: Tensor,
    states: Tensor,
    products: Tensor,
    weights: Tensor,
    columns: Sequence[int],
    normalization: int,
    output: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = [tensor.new_empty(tensor.shape) for tensor in (states, products, weights)]
    return gradients[0], gradients[1], gradients[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    states, products, weights, ctx.columns, ctx.normalization, _, var, ctx.eps = inputs
    y, batch_mean, batch_var = output
    own = ctx.normalization == _BATCH
    ctx.mark_non_differentiable(batch_mean, batch_var)
    ctx.save_for_backward(states, products, weights, y if own else None, batch_var if own else var)


def _backward(ctx: Any, grad_output: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    states, products, weights, y, var = ctx.saved_tensors
    gradients = torch.ops.pynas.mixed_activation_backward.default(
        grad_output, states, products, weights, ctx.columns, ctx.normalization, y, var, ctx.eps
    )
    return (*gradients, None, None, None, None, None)


def _setup_double(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad_output, states, products, weights, ctx.columns, ctx.normalization, _, var, ctx.eps = inputs
    ctx.save_for_backward(grad_output, states, products, weights, var)


def _double_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Through the definition: output and batch statistics count as functions of the inputs."""
    *tensors, var = ctx.saved_tensors
    with torch.enable_grad():
        grad, states, products, weights = (tensor.detach().requires_grad_() for tensor in tensors)
        wide = weights.dtype
        y = _mixture(states.to(wide), products.to(wide), weights, ctx.columns)
        if ctx.normalization == _BATCH:
            y = (y - y.mean(0)) * (y.var(0, correction=0) + ctx.eps).rsqrt()
        elif ctx.normalization == _GIVEN:
            y = y * (var + ctx.eps).rsqrt()
        first = torch.autograd.grad(y, (states, products, weights), grad.to(wide), create_graph=True)
        pairs = [(f, c) for f, c in zip(first, cotangents, strict=True) if c is not None and f.requires_grad]
        if not pairs:
            return (None,) * 9
        second = torch.autograd.grad(
            [f for f, _ in pairs],
            (grad, states, products, weights),
            [c for _, c in pairs],
            allow_unused=True,
        )
    return (*second, None, None, None, None, None)


register_fake("mixed_activation", _fake)
register_fake("mixed_activation_backward", _fake_backward)
torch.library.register_autograd("pynas::mixed_activation", _backward, setup_context=_setup_context)
torch.library.register_autograd(
    "pynas::mixed_activation_backward", _double_backward, setup_context=_setup_double
)
