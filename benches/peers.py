"""Five networks, and moments and norms of their samples' gradients by every library that computes these.

Moments are sums over samples of abs(g) and g^2 by weight, norms squared ones by sample and parameter, both
of all parameters. What a library cannot run raises, and is left out with its reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pynas.stats import GradMoments, GradNorms, collect

CLASSES = 10
Values = dict[str, tuple[Tensor, ...]]  # by parameter: (sum |g|, sum g^2), or (||g_b||^2,)
Run = Callable[[], Values]


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Positions(nn.Module):
    """Adds a table of positions."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, positions, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Attention(nn.Module):
    """Self-attention by linear layers, which every library knows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.heads = nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        layers = self.query, self.key, self.value
        q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in layers)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A layer of a vision transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class Tokens(nn.Module):
    """Patches of an image as a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """A basic block of ResNet-18 with group norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(32, outputs), nn.GroupNorm(32, outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(32, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Last(nn.Module):
    """The last output of a recurrent layer."""

    def forward(self, x: tuple[Tensor, Any]) -> Tensor:
        return x[0][:, -1]


def text() -> nn.Module:
    head = nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    return nn.Sequential(nn.Embedding(20_000, 64), Mean(), *head)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES),
    )  # fmt: skip


def vit() -> nn.Module:
    layers = [Encoder(128) for _ in range(4)]
    return nn.Sequential(
        nn.Conv2d(3, 128, 4, 4), Tokens(), Positions(64, 128), *layers, nn.LayerNorm(128), Mean(),
        nn.Linear(128, CLASSES),
    )  # fmt: skip


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.GroupNorm(32, 64), nn.ReLU()]
    width = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, outputs, stride), Block(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def lstm() -> nn.Module:
    return nn.Sequential(nn.LSTM(64, 128, batch_first=True), Last(), nn.Linear(128, CLASSES))


def tokens(batch: int) -> Tensor:
    return torch.randint(0, 20_000, (batch, 64))


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32)


def small_images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def series(batch: int) -> Tensor:
    return torch.randn(batch, 32, 64)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "text": (text, tokens), "cnn": (cnn, images), "vit": (vit, images),
    "resnet18_group_norm": (resnet18, small_images), "lstm": (lstm, series),
}  # fmt: skip
STATISTICS = ("moments", "norms")


def summed(rows: Iterable[tuple[str, Tensor]], statistic: str, scale: float = 1.0) -> Values:
    """Statistics of per-sample gradients [B, ...], each multiplied by ``scale``."""
    if statistic == "moments":
        return {n: (g.abs().sum(0) * scale, g.square().sum(0) * scale**2) for n, g in rows}
    return {n: (g.flatten(1).square().sum(1) * scale**2,) for n, g in rows}


def plain(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    """A forward and backward pass, and no statistic."""

    def run() -> Values:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        return {}

    return run


def pynas(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    needs = [GradMoments(("abs", "square"))] if statistic == "moments" else [GradNorms()]

    def run() -> Values:
        found = collect(model, x, y, needs=needs)
        if statistic == "norms":
            return {n: (v,) for n, v in found[GradNorms].items()}
        return {n: (m.abs, m.square) for n, m in found[GradMoments].items()}

    return run


def opacus(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    """Gradients of all samples, by rules of each kind of layer."""
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(_private(model), loss_reduction="mean")

    def run() -> Values:
        F.cross_entropy(wrapped(x), y).backward()
        rows = ((n, p.grad_sample) for n, p in wrapped._module.named_parameters() if p.requires_grad)
        found = summed(rows, statistic, 1 / len(x))
        for p in wrapped.parameters():
            p.grad_sample = p.grad = None
        return found

    return run


def opacus_ghost(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    """Norms alone, without the gradients of samples where a layer's rule can do so."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    if statistic != "norms":
        raise NotImplementedError("it computes norms only")
    wrapped = GradSampleModuleFastGradientClipping(_private(model), loss_reduction="mean", max_grad_norm=1.0)

    def run() -> Values:
        F.cross_entropy(wrapped(x), y).backward()
        named = [(n, p) for n, p in wrapped._module.named_parameters() if p.requires_grad]
        found = {n: ((p._norm_sample / len(x)).square(),) for n, p in named}
        for p in wrapped.parameters():
            p._norm_sample = p.grad_sample = p.grad = None
        return found

    return run


def _private(model: nn.Module) -> nn.Module:
    """The model as Opacus wants it: its own recurrent layers in place of PyTorch's."""
    from opacus.validators import ModuleValidator

    model.train()
    return ModuleValidator.fix(model) if ModuleValidator.validate(model) else model


def backpack(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    from backpack import backpack as context
    from backpack import extend
    from backpack.extensions import BatchGrad

    extended, loss = extend(model), extend(nn.CrossEntropyLoss())
    extension = BatchGrad()

    def run() -> Values:
        model.zero_grad()
        with context(extension):
            loss(extended(x), y).backward()
        found = summed(((n, p.grad_batch) for n, p in model.named_parameters()), statistic)
        for p in model.parameters():
            del p.grad_batch
        return found

    return run


def vmap(model: nn.Module, x: Tensor, y: Tensor, statistic: str) -> Run:
    """torch.func: the gradient of one sample, mapped over the batch."""
    values = {n: p.detach() for n, p in model.named_parameters()}

    def of_one(parameters: Any, a: Tensor, b: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (a[None],)), b[None])

    rows_of = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))
    return lambda: summed(rows_of(values, x, y).items(), statistic, 1 / len(x))


LIBRARIES: dict[str, Callable[[nn.Module, Tensor, Tensor, str], Run]] = {
    "pynas": pynas, "plain": plain, "opacus": opacus, "opacus_ghost": opacus_ghost, "backpack": backpack,
    "vmap": vmap,
}  # fmt: skip


def implementation(library: str, network: str, statistic: str, batch: int) -> Run:
    """What computes a statistic of a network by one library."""
    torch.manual_seed(0)
    build, inputs = NETWORKS[network]
    model, x = build(), inputs(batch)
    return LIBRARIES[library](model, x, torch.arange(batch) % CLASSES, statistic)


def implementations(network: str, statistic: str, batch: int) -> tuple[dict[str, Run], dict[str, str]]:
    """All that run, and of the others why they do not."""
    running: dict[str, Run] = {}
    refused: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = implementation(name, network, statistic, min(batch, 4))
                run()
                running[name] = implementation(name, network, statistic, batch)
        except Exception as error:
            refused[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return running, refused


def check(running: dict[str, Run]) -> None:
    """Every library's values are pynas's within float32's rounding."""
    ours = running["pynas"]()
    for name, run in running.items():
        if name in ("pynas", "plain"):
            continue
        theirs = run()
        for key, values in theirs.items():
            if key not in ours:  # a layer of the library's own has names of its own
                continue
            for i, (a, b) in enumerate(zip(ours[key], values, strict=True)):
                # A bias of keys has a gradient of zero, but for rounding.
                zero = 1e-5 * max(float(v[i].abs().max()) for v in ours.values())
                # In the mean square: an activation at zero may fall on either side.
                error, size = float((a - b).norm()), float(b.norm())
                assert error <= 5e-3 * size + zero * b.numel() ** 0.5, f"{name}: {key} is off by {error:.1e}"
