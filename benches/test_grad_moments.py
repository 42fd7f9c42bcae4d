"""All four moments of samples' weight gradients against the ordinary weight gradient in its better layout.

Shapes of NAS-Bench-201 (16@32, 32@16, 64@8; kernels 3 and 1), ResNet-18 at 32x32 (128@16, 256@8, 512@4), and
linear layers. One group per shape; the order of cases is shuffled, results are checked before they are timed,
and ``extra_info`` holds the floor. Targets: geometric mean over the convolutions 1.05, aim 0.85 (2.2 and 1.8
under PYNAS_ISA=avx2); linear 1.3, aim 1.05; linear on one position 5, aim 3. `pynas bench` alternates the
same implementations round by round and reports ratios.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from pynas import ops
from pynas.bench import describe, peak
from pynas.bench.operators import BATCH, NASBENCH201, RESNET, conv2d_case, linear_case

CONV = [(c, side, k) for c, side in NASBENCH201 for k in (3, 1)] + [(c, side, 3) for c, side in RESNET]
LINEAR = [(64, 256, 1024), (64, 1024, 256), (1, 512, 1000)]
CONV_FORMS = (
    "pynas",
    "pynas, NCHW",
    "weight gradient, NCHW",
    "weight gradient, channels_last",
    "vmap",
)


def four_sums(g: Tensor) -> Tensor:
    return torch.stack([g.sum(0), g.abs().sum(0), g.square().sum(0), g.sign().sum(0)])


def pynas_nchw(channels: int, side: int, kernel: int) -> Callable[[], object]:
    x, delta = (torch.randn(BATCH, channels, side, side) for _ in range(2))
    return lambda: ops.conv2d_grad_moments(delta, x, kernel, padding=kernel // 2)


def vmap_form(channels: int, side: int, kernel: int) -> Callable[[], object]:
    """What a user writes with torch.func: every sample's gradient, then the sums."""
    x, delta = (torch.randn(BATCH, 1, channels, side, side) for _ in range(2))
    weight = torch.randn(channels, channels, kernel, kernel)

    def gradient(x: Tensor, delta: Tensor) -> Tensor:
        _, backward, *_ = torch.func.vjp(
            lambda w: torch.nn.functional.conv2d(x, w, padding=kernel // 2), weight
        )
        return backward(delta)[0]

    return lambda: four_sums(torch.vmap(gradient)(x, delta))


@cache
def multiply_adds() -> float:
    """FLOP/s of a large matrix product, measured once."""
    return peak()[0]


def shuffled(cases: list[tuple[tuple[int, ...], str]]) -> list[tuple[tuple[int, ...], str]]:
    """The same on every run: workers of pytest-xdist must agree."""
    return random.Random(0).sample(cases, len(cases))


@pytest.mark.parametrize(("shape", "implementation"), shuffled([(s, c) for s in CONV for c in CONV_FORMS]))
def test_conv2d_grad_moments(benchmark, shape, implementation):
    channels, side, kernel = shape
    benchmark.group = f"conv2d_grad_moments {channels}@{side} k{kernel}"
    problem = conv2d_case(channels, side, kernel)
    if implementation == "vmap":
        if channels >= 256:
            pytest.skip("a gradient for each sample takes gigabytes here")
        run = vmap_form(channels, side, kernel)
    elif implementation == "pynas, NCHW":
        run = pynas_nchw(channels, side, kernel)
    else:
        run = problem.implementations[implementation]
    if implementation == "pynas":
        problem.check()
    benchmark.extra_info |= describe() | {"floor_seconds": problem.flops / multiply_adds()}
    benchmark(run)


@pytest.mark.parametrize(
    ("shape", "implementation"), shuffled([(s, c) for s in LINEAR for c in ("pynas", "weight gradient")])
)
def test_linear_grad_moments(benchmark, shape, implementation):
    positions, inputs, outputs = shape
    benchmark.group = f"linear_grad_moments T={positions} {inputs}->{outputs}"
    problem = linear_case(positions, inputs, outputs)
    if implementation == "pynas":
        problem.check()
    benchmark.extra_info |= describe() | {"floor_seconds": problem.flops / multiply_adds()}
    benchmark(problem.implementations[implementation])
