"""Networks, data, and the published formulas as plain PyTorch in float64 computes them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas import spaces

CELLS = (
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|",
)


class Odd(nn.Module):
    """Groups, stride, dilation, bias, in-place activation and sum, a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 12, (3, 1), stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x), inplace=True)
        for _ in range(2):
            z = self.norm(self.grouped(y))
            z += y
            y = F.relu(z)
        return self.head(F.max_pool2d(F.relu(self.down(y)), 2).mean((2, 3)))


def odd() -> nn.Module:
    torch.manual_seed(3)
    return Odd()


def cell(text: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        space = spaces.get("nasbench201", num_cells=1)
        torch.manual_seed(0)
        model = space.build(space.parse(text), num_classes=5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        return model

    return make


NETWORKS: dict[str, Callable[[], nn.Module]] = {"odd": odd, "cell": cell(CELLS[0]), "sparse": cell(CELLS[1])}


def images(n: int = 10, size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=generator), torch.randint(0, 5, (n,), generator=generator)


def exact(model: nn.Module) -> nn.Module:
    """A copy in float64 and train mode."""
    return copy.deepcopy(model).double().train()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by the name of their weight."""
    kinds = (nn.Conv2d, nn.Linear)
    return {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, kinds)}


def grasp(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    model = exact(model)
    weights = {name: m.weight for name, m in layers(model).items()}
    gradients = torch.autograd.grad(
        F.cross_entropy(model(x.double()), y), list(weights.values()), create_graph=True, allow_unused=True
    )
    z = sum((g.detach() * g).sum() for g in gradients if g is not None)
    found = torch.autograd.grad(z, list(weights.values()), allow_unused=True)
    return {
        name: 0.0 if h is None else -float((w.detach() * h).sum())
        for (name, w), h in zip(weights.items(), found, strict=True)
    }


def fisher(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    model, outputs = exact(model), []
    for name, module in layers(model).items():

        def hook(_: nn.Module, __: object, out: Tensor, name: str = name) -> Tensor:
            out.retain_grad()
            outputs.append((name, out, out.detach()))
            return out.clone()  # the model may change what it gets in place

        module.register_forward_hook(hook)
    F.cross_entropy(model(x.double()), y).backward()
    result: dict[str, float] = {}
    for name, out, value in outputs:
        products = value * (torch.zeros_like(value) if out.grad is None else out.grad)
        channels = (products.flatten(2).sum(2) if products.dim() > 2 else products).square().mean(0) / 2
        weight = model.get_parameter(name)
        per_weight = channels.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
        result[name] = result.get(name, 0.0) + float(per_weight.abs().sum())
    return result


def synflow(model: nn.Module, shape: torch.Size, *, batch_norm: bool = False) -> dict[str, float]:
    """sum |w dR/dw| by weight."""
    model = exact(model)
    for t in (*model.parameters(), *model.buffers()):
        t.data.abs_()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not batch_norm:
            module.forward = lambda x: x
    model(torch.ones(1, *shape[1:], dtype=torch.float64)).sum().backward()
    return {
        name: float((m.weight.detach() * m.weight.grad).abs().sum())
        for name, m in layers(model).items()
        if m.weight.grad is not None
    }


def jacobian(model: nn.Module, x: Tensor) -> np.ndarray:
    inputs = x.double().requires_grad_()
    (found,) = torch.autograd.grad(exact(model)(inputs).sum(), inputs)
    return found.flatten(1).numpy()


def jacob_cov(model: nn.Module, x: Tensor) -> float:
    values = np.linalg.eigvals(np.corrcoef(jacobian(model, x))).real
    return float(-np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5)))


def epe_nas(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> float:
    rows, scores = jacobian(model, x), {}
    for label in y.unique().tolist():
        members = rows[(y == label).numpy()]
        if classes > 100 and len(members) < 2:
            continue
        correlations = np.atleast_2d(np.corrcoef(members))
        value = np.log(np.abs(correlations) + 1e-5).sum()
        scores[label] = value / len(correlations) if classes > 100 else value
    if classes <= 100:
        return float(sum(abs(s) for s in scores.values()))
    return float(sum(abs(a - b) for a in scores.values() for b in scores.values()) / len(scores))


def logs(values: dict[str, float]) -> dict[str, float]:
    return {name: math.log(value) for name, value in values.items() if value}
