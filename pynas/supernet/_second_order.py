"""The second-order gradient of DARTS, by a finite difference.

Source: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, equations 7, 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from pynas.nn import Supernet
from pynas.supernet import distributed


def second_order_gradient(
    network: Supernet,
    training_loss: Callable[[], Tensor],
    validation_loss: Callable[[], Tensor],
    optimizer: Optimizer,
) -> None:
    r"""Set the gradients of alpha to those of ``L_val(w'(alpha), alpha)``.

    ``w' = w - r (m b + grad_w L_train + d w)`` with rate r, momentum m, its buffer b and weight decay d of
    ``optimizer``; with ``v = grad_w' L_val`` and ``e = 0.01 / |v|``:

        grad_alpha L_val(w') - r [grad_alpha L_train(w + e v) - grad_alpha L_train(w - e v)] / (2 e)

    Restores weights and buffers, so these passes do not change the running statistics of batch norms. With
    several processes, gradients of w are averaged here; those of alpha are left to the caller.
    """
    weights = list(network.weight_parameters())
    alphas = list(network.architecture_parameters())
    group = optimizer.param_groups[0]
    rate = float(group["lr"])
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    before = [weight.detach().clone() for weight in weights]
    try:
        gradients = torch.autograd.grad(training_loss(), weights, allow_unused=True)
        distributed.average([gradient for gradient in gradients if gradient is not None])
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    change = gradient + group["weight_decay"] * weight
                    moved = optimizer.state.get(weight, {}).get("momentum_buffer")
                    if moved is not None:
                        change += group["momentum"] * moved
                    weight.sub_(change, alpha=rate)
        found = torch.autograd.grad(validation_loss(), [*alphas, *weights], allow_unused=True)
        direct, along = found[: len(alphas)], found[len(alphas) :]
        distributed.average([v for v in along if v is not None])
        norm = float(torch.stack([v.double().square().sum() for v in along if v is not None]).sum().sqrt())
        size = 0.01 / norm if norm > 0 else 0.0
        sides = []
        for sign in (1.0, -1.0):
            _move(weights, before, along, sign * size)
            sides.append(torch.autograd.grad(training_loss(), alphas, allow_unused=True))
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
            for buffer, old in buffers:
                buffer.copy_(old)
    for alpha, first, plus, minus in zip(alphas, direct, *sides, strict=True):
        total = torch.zeros_like(alpha) if first is None else first
        if plus is not None and minus is not None and size:
            total = total - rate * (plus - minus) / (2 * size)
        alpha.grad = total


@torch.no_grad()
def _move(
    weights: Sequence[Tensor], before: Sequence[Tensor], along: Sequence[Tensor | None], size: float
) -> None:
    for weight, old, direction in zip(weights, before, along, strict=True):
        weight.copy_(old if direction is None else old + size * direction)
