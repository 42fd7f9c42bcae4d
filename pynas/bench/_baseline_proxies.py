"""Baseline implementations of proxies: each by itself, in plain PyTorch.

Every function takes a fresh model, images and labels, and returns the score in float32. Its docstring lists
the passes that it needs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Baseline = Callable[[nn.Module, Tensor, Tensor], float]


def weights(model: nn.Module) -> list[Tensor]:
    """Weights of convolutions and linear layers."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(F.cross_entropy(model(x), y), weights(model), allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights(model), strict=True)]


def grad_norm(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward, backward."""
    return sum(float(g.norm()) for g in _gradients(model, x, y))


def snip(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward, backward."""
    pairs = zip(weights(model), _gradients(model, x, y), strict=True)
    return sum(float((w.detach() * g).abs().sum()) for w, g in pairs)


def plain(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward, backward."""
    pairs = zip(weights(model), _gradients(model, x, y), strict=True)
    return sum(float((w.detach() * g).sum()) for w, g in pairs)


def fisher(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward with every output kept, backward."""
    outputs: list[tuple[Tensor, int]] = []
    handles = [
        m.register_forward_hook(lambda m, _, out: outputs.append((out, m.weight[0].numel())))
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    loss = F.cross_entropy(model(x), y)
    for handle in handles:
        handle.remove()
    found = torch.autograd.grad(loss, [out for out, _ in outputs])
    total = 0.0
    for (out, count), g in zip(outputs, found, strict=True):
        products = (out.detach() * g).flatten(2).sum(2) if out.dim() == 4 else out.detach() * g
        total += count * float(products.square().mean(0).sum()) / 2
    return total


def grasp(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward, backward, forward, backward with a graph, backward through that graph."""
    first = _gradients(model, x, y)
    second = torch.autograd.grad(F.cross_entropy(model(x), y), weights(model), create_graph=True)
    z = torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
    found = torch.autograd.grad(z, weights(model), allow_unused=True)
    pairs = zip(weights(model), found, strict=True)
    return -sum(float((w.detach() * h).sum()) for w, h in pairs if h is not None)


def jacob_cov(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward, backward to the images."""
    inputs = x.clone().requires_grad_()
    model.zero_grad()
    torch.autograd.backward(model(inputs).sum())
    assert inputs.grad is not None
    values = torch.linalg.eigvalsh(torch.corrcoef(inputs.grad.flatten(1).double())) + 1e-5
    return -float((values.log() + 1 / values).sum())


def naswot(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward with hooks; two matrix products per ReLU."""
    kernel = torch.zeros(len(x), len(x))

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        nonlocal kernel
        codes = (inputs[0].flatten(1) > 0).float()
        kernel = kernel + codes @ codes.T + (1 - codes) @ (1 - codes).T

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return float(torch.linalg.slogdet(kernel.double()).logabsdet)


def synflow(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """A copy in float64, forward and backward of one image."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = lambda input: input  # type: ignore[method-assign]
    for t in model.parameters():
        t.data.abs_()
    ones = torch.ones(1, *x.shape[1:], dtype=torch.float64)
    found = torch.autograd.grad(model(ones).sum(), weights(model), allow_unused=True)
    pairs = zip(weights(model), found, strict=True)
    return math.log(sum(float((w.detach() * g).abs().sum()) for w, g in pairs if g is not None))


def zico(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward and backward of each half."""
    halves = [_gradients(model, *half) for half in zip(x.chunk(2), y.chunk(2), strict=True)]
    total = 0.0
    for pair in zip(*halves, strict=True):
        g = torch.stack(pair)
        std = g.std(0, correction=0)
        ratio = torch.where(std != 0, g.abs().mean(0) / std, 0).sum(dtype=torch.float64)
        total += math.log(ratio) if ratio else 0.0
    return total


def grad_sign(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Forward and backward of each image by itself."""
    signs = [torch.zeros_like(w) for w in weights(model)]
    for i in range(len(x)):
        for total, g in zip(signs, _gradients(model, x[i : i + 1], y[i : i + 1]), strict=True):
            total += g.sign()
    return sum(float(s.abs().sum()) for s in signs)


BASELINES: dict[str, Baseline] = {
    f.__name__: f
    for f in (
        fisher,
        grad_norm,
        grad_sign,
        grasp,
        jacob_cov,
        naswot,
        plain,
        snip,
        synflow,
        zico,
    )
}
