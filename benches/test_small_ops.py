"""The memory-bound operators against their plain PyTorch form: norm layers, embeddings, running moments.

``extra_info`` holds the floor: bytes that any method must move over the bandwidth of a large copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pynas import ops
from pynas.bench import describe, peak
from pynas.ops import Moments

NORMS: dict[str, tuple[tuple[int, int, int], str, str]] = {
    # name: (B, C, T), memory order, statistics
    "BatchNorm 64x16x32x32 NCHW": ((64, 16, 1024), "first", "batch"),
    "BatchNorm 64x16x32x32 channels_last": ((64, 16, 1024), "last", "batch"),
    "BatchNorm 64x128x16x16 NCHW": ((64, 128, 256), "first", "batch"),
    "BatchNorm 64x128x16x16 channels_last": ((64, 128, 256), "last", "batch"),
    "BatchNorm 128x512x4x4 NCHW": ((128, 512, 16), "first", "batch"),
    "BatchNorm 128x512x4x4 channels_last": ((128, 512, 16), "last", "batch"),
    "BatchNorm 128x64x32x32 NCHW": ((128, 64, 1024), "first", "batch"),
    "BatchNorm 128x64x32x32 channels_last": ((128, 64, 1024), "last", "batch"),
    "BatchNorm1d 512x1024": ((512, 1024, 1), "first", "batch"),
    "LayerNorm 64x128x768": ((64, 768, 128), "last", "layer"),
}
EMBEDDINGS = {  # name: B, T, rows, features
    "64x128 of 1000x256": (64, 128, 1000, 256),
    "64x128 of 30000x512": (64, 128, 30000, 512),
}


@dataclass(frozen=True)
class Problem:
    """Contenders by name, what to compare of their results, and the bytes that any method must move."""

    contenders: dict[str, Callable[[], Any]]
    values: Callable[[Any], Tensor]
    bytes: float
    tolerance: float = 1e-4


def four_sums(g: Tensor) -> Tensor:
    """What a user writes once the samples' gradients [B, ...] are at hand."""
    return torch.stack([g.sum(0), g.abs().sum(0), g.square().sum(0), g.sign().sum(0)])


def stacked(moments: Moments) -> Tensor:
    tensors = (moments.sum, moments.abs, moments.square)  # signs of sums near zero are a matter of rounding
    return torch.stack([tensor for tensor in tensors if tensor is not None])


def norm_problem(shape: tuple[int, int, int], order: str, statistics: str) -> Problem:
    batch, channels, positions = shape
    stored = shape if order == "first" else (batch, positions, channels)
    delta, x = (torch.randn(stored) for _ in range(2))
    if order == "last":
        delta, x = delta.transpose(1, 2), x.transpose(1, 2)
    axes = (0, 2) if statistics == "batch" else (1,)
    mean, rstd = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True).rsqrt()

    def plain() -> tuple[Tensor, Tensor]:
        return four_sums((delta * ((x - mean) * rstd)).sum(2)), four_sums(delta.sum(2))

    def values(result: Any) -> Tensor:
        return stacked(result.weight) if isinstance(result, ops.GradMoments) else result[0][:3]

    contenders = {"pynas": lambda: ops.affine_grad_moments(delta, x, mean, rstd), "plain": plain}
    return Problem(contenders, values, 8.0 * x.numel())


def embedding_problem(batch: int, positions: int, rows: int, features: int) -> Problem:
    delta = torch.randn(batch, positions, features)
    indices = torch.randint(rows, (batch, positions))
    touched = int(indices.unique().numel())

    def dense_gradient() -> Tensor:
        """Only the ordinary gradient: the four sums in plain PyTorch would need [B, V, D]."""
        result: Tensor = torch.ops.aten.embedding_dense_backward(delta, indices, rows, -1, False)
        return result

    def values(result: Any) -> Tensor:
        if isinstance(result, Tensor):
            return result[indices.unique()]
        sums: Tensor = result[1].weight.sum
        return sums

    contenders = {
        "pynas": lambda: ops.embedding_grad_moments(delta, indices, rows),
        "ordinary gradient": dense_gradient,
    }
    return Problem(contenders, values, 4.0 * delta.numel() + 16.0 * touched * features)


def update_problem(n: int) -> Problem:
    grad = torch.randn(n)
    states = {name: tuple(torch.zeros(n) for _ in range(3)) for name in ("pynas", "plain")}

    def run(name: str, update: Callable[..., None]) -> tuple[Tensor, ...]:
        update(grad, *states[name], 2)
        return states[name]

    contenders = {
        "pynas": lambda: run("pynas", ops.moments_update),
        "plain": lambda: run("plain", ops.moments_update_reference),
    }
    return Problem(contenders, lambda result: result[2], 28.0 * n, 1e-5)


def problems() -> dict[str, Callable[[], Problem]]:
    found: dict[str, Callable[[], Problem]] = {}
    for name, arguments in NORMS.items():
        found[f"affine_grad_moments {name}"] = lambda a=arguments: norm_problem(*a)
    for name, sizes in EMBEDDINGS.items():
        found[f"embedding_grad_moments {name}"] = lambda s=sizes: embedding_problem(*s)
    for n in (100_000, 4_000_000):
        found[f"moments_update {n}"] = lambda n=n: update_problem(n)
    return found


PROBLEMS = problems()
CASES = [(name, who) for name in PROBLEMS for who in ("pynas", "other")]


@pytest.fixture(scope="session")
def bandwidth() -> float:
    return peak()[1]


@pytest.mark.parametrize(("name", "who"), CASES, ids=[f"{name}, {who}" for name, who in CASES])
def test_small_ops(benchmark: Any, bandwidth: float, name: str, who: str) -> None:
    torch.manual_seed(0)
    problem = PROBLEMS[name]()
    ours, other = problem.contenders
    results = [problem.values(run()) for run in problem.contenders.values()]
    assert (results[0] - results[1]).norm() <= problem.tolerance * results[1].norm()
    benchmark.group = name
    benchmark.extra_info.update(describe(), floor_seconds=problem.bytes / bandwidth)
    benchmark(problem.contenders[ours if who == "pynas" else other])
