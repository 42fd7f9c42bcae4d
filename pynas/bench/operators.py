"""Cases for the gradients of convolutions and linear layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pynas import ops
from pynas.bench._harness import CASES, Case, Problem

BATCH = 64
# (channels, side): the three stages of NAS-Bench-201 and three of ResNet-18 at 32x32.
NASBENCH201 = ((16, 32), (32, 16), (64, 8))
RESNET = ((128, 16), (256, 8), (512, 4))


def close(got: Tensor | None, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that the relative error ``|got - expected|_2 / |expected|_2`` is at most ``tolerance``."""
    assert got is not None
    error = ((got.double() - expected.double()).norm() / expected.double().norm()).item()
    assert error <= tolerance, f"{what}: relative error {error:.2e} above {tolerance:.0e}"


def conv2d_case(channels: int, side: int, kernel: int, stride: int = 1, groups: int = 1) -> Problem:
    """All four moments of a convolution's gradients against its ordinary weight gradient."""
    generator = torch.Generator().manual_seed(0)
    out_side = (side + 2 * (kernel // 2) - kernel) // stride + 1
    x = torch.randn(BATCH, channels, side, side, generator=generator)
    delta = torch.randn(BATCH, channels, out_side, out_side, generator=generator)
    x_last = x.to(memory_format=torch.channels_last)
    delta_last = delta.to(memory_format=torch.channels_last)
    shape = (channels, channels // groups, kernel, kernel)
    geometry: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "groups": groups}

    def moments() -> ops.MomentSums:
        return ops.conv2d_grad_moments(delta_last, x_last, (kernel, kernel), **geometry)

    def weight(x: Tensor, delta: Tensor) -> Tensor:
        return cast(Tensor, conv2d_weight(x, shape, delta, **geometry))  # type: ignore[no-untyped-call]

    def check() -> None:
        result = moments().weight
        close(result.sum, weight(x.double(), delta.double()), 1e-5, "sum")
        # Check the moments that are no gradients on a slice: there per-sample gradients are affordable.
        few = 4
        rows = torch.stack([weight(x[b : b + 1].double(), delta[b : b + 1].double()) for b in range(few)])
        part = ops.conv2d_grad_moments(delta_last[:few], x_last[:few], (kernel, kernel), **geometry).weight
        close(part.abs, rows.abs().sum(0), 1e-5, "abs")
        close(part.square, rows.square().sum(0), 1e-5, "square")
        assert part.sign is not None
        assert (part.sign.double() != rows.sign().sum(0)).double().mean() < 1e-3, "sign"

    return Problem(
        implementations={
            "pynas": moments,
            "weight gradient, NCHW": lambda: weight(x, delta),
            "weight gradient, channels_last": lambda: weight(x_last, delta_last),
        },
        check=check,
        flops=2.0 * BATCH * out_side**2 * math.prod(shape),
        bytes=4.0 * (x.numel() + delta.numel() + 4 * math.prod(shape)),
    )


def linear_case(positions: int, inputs: int, outputs: int, batch: int = BATCH) -> Problem:
    """All four moments of a linear layer's gradients against its ordinary weight gradient."""
    generator = torch.Generator().manual_seed(0)
    lead = (batch,) if positions == 1 else (batch, positions)
    a = torch.randn(*lead, inputs, generator=generator)
    delta = torch.randn(*lead, outputs, generator=generator)

    def moments() -> ops.MomentSums:
        return ops.linear_grad_moments(delta, a)

    def check() -> None:
        result = moments().weight
        rows = torch.einsum("bto,bti->boi", delta.view(batch, positions, -1), a.view(batch, positions, -1))
        for got, expected in ((result.sum, rows), (result.abs, rows.abs()), (result.square, rows.square())):
            close(got, expected.double().sum(0), 1e-4, "moment")

    return Problem(
        implementations={
            "pynas": moments,
            "weight gradient": lambda: delta.reshape(-1, outputs).t() @ a.reshape(-1, inputs),
        },
        check=check,
        flops=2.0 * batch * positions * inputs * outputs,
        bytes=4.0 * (a.numel() + delta.numel() + 4 * inputs * outputs),
    )


def add(name: str, make: Callable[[], Problem], must: float | None = None, aim: float | None = None) -> None:
    """Register a case."""
    CASES.register(name, Case(name, make, must, aim))


for _channels, _side in NASBENCH201 + RESNET:
    for _kernel in (3, 1) if (_channels, _side) in NASBENCH201 else (3,):
        add(
            f"conv2d_grad_moments/{_channels}@{_side}_k{_kernel}",
            lambda c=_channels, s=_side, k=_kernel: conv2d_case(c, s, k),  # type: ignore[misc]
            1.05,
            0.85,
        )
add("conv2d_grad_moments/64@16_k3_stride2", lambda: conv2d_case(64, 16, 3, stride=2))
add("conv2d_grad_moments/64@16_k3_depthwise", lambda: conv2d_case(64, 16, 3, groups=64))
add("linear_grad_moments/T64_256x1024", lambda: linear_case(64, 256, 1024), 1.3, 1.05)
add("linear_grad_moments/T64_1024x256", lambda: linear_case(64, 1024, 256), 1.3, 1.05)
add("linear_grad_moments/T1_512x1000", lambda: linear_case(1, 512, 1000), 5.0, 3.0)
