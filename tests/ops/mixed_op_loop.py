"""The loop over candidates that every library has, written from the papers' definitions in plain modules."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

DARTS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NASBENCH201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TRANSNAS = NASBENCH201[:4]
FAMILIES = {"darts": DARTS, "nasbench201": NASBENCH201, "transnas": TRANSNAS}


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0


class FactorizedReduce(nn.Module):
    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, out, 1, stride=2, bias=False)
            for out in (channels // 2, channels - channels // 2)
            if out > 0
        )
        self.bn = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        r = torch.relu(x)
        moved = nn.functional.pad(r, (0, 1, 0, 1))[:, :, 1:, 1:]
        images = (r, moved)[-len(self.convs) :]
        return self.bn(torch.cat([conv(image) for conv, image in zip(self.convs, images, strict=True)], 1))


def separable(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def candidate(name: str, family: str, channels: int, stride: int, affine: bool) -> nn.Module:
    kernel = int(name[-1]) if name[-1].isdigit() else 0
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, affine)
    if "pool" in name:
        pool: nn.Module = nn.MaxPool2d(3, stride, 1)
        if name.startswith("avg"):
            pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if family == "darts" else pool
    if name.startswith("sep"):
        return nn.Sequential(
            *separable(channels, kernel, stride, 1, affine), *separable(channels, kernel, 1, 1, affine)
        )
    if name.startswith("dil"):
        return nn.Sequential(*separable(channels, kernel, stride, 2, affine))
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


class Loop(nn.Module):
    """sum_k w_k op_k(x), candidates with a weight of zero left out."""

    def __init__(
        self, names: tuple[str, ...], family: str, channels: int, stride: int, affine: bool = False
    ) -> None:
        super().__init__()
        self.names, self.family, self.stride, self.affine = names, family, stride, affine
        self.ops = nn.ModuleList(candidate(name, family, channels, stride, affine) for name in names)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        terms = [
            w * op(x) for w, op, value in zip(weights, self.ops, weights.tolist(), strict=True) if value != 0
        ]
        return sum(terms) if terms else self.ops[0](x) * 0

    def tensors(self) -> list[Tensor]:
        """Parameters as the operator takes them: it has both halves of a reduction, also an empty one."""
        result: list[Tensor] = []
        for op in self.ops:
            if isinstance(op, FactorizedReduce) and len(op.convs) == 1:
                result.append(op.convs[0].weight.new_zeros(0, *op.convs[0].weight.shape[1:]))
            result += list(op.parameters())
        return result

    def norms(self) -> Iterator[nn.BatchNorm2d]:
        return (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))

    def running(self) -> list[Tensor]:
        return [t for norm in self.norms() for t in (norm.running_mean, norm.running_var)]

    def counts(self) -> list[Tensor]:
        return [norm.num_batches_tracked for norm in self.norms()]


def randomised(loop: Loop, seed: int) -> Loop:
    """Weights of the size that training has, affine norms and running statistics that are not all ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in loop.parameters():
            fan = max(1, p[0].numel()) if p.dim() == 4 else 4
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / fan**0.5)
            if p.dim() == 1:
                p.add_(0.7)
        for norm in loop.norms():
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
    return loop
